from keras_attn.training.fit.callbacks import EpochLines


def line(capsys, logs, watch="val_logits_accuracy"):
    lines = EpochLines(epochs=60, steps=7, watch=watch)
    lines.on_epoch_begin(4)
    lines.on_train_batch_end(3, logs)
    lines.on_epoch_end(4, logs)
    return capsys.readouterr().out


def test_a_line_has_the_watched_log_first_and_fits(capsys):
    logs = {f"some_long_name_{number}": number / 3 for number in range(20)}
    logs |= {"val_loss": 2.0, "loss": 1.25, "val_logits_accuracy": 0.12345}
    text = line(capsys, logs)
    assert text.startswith("Epoch 5/60: 0.0 s, val_logits_accuracy 0.1235, loss 1.25, ")
    assert "val_loss 2, some_long_name_0 0," in text
    assert 90 < len(text) <= 121 and text.count("\n") == 1 and text.endswith("\n")


def test_nothing_to_watch(capsys):
    assert line(capsys, {"loss": 0.5}, None) == "Epoch 5/60: 0.0 s, loss 0.5\n"
