"""What the commands do: one thin function each, over the Python API.

Imports are inside, so that a command loads what it needs and no more.
"""

import json
import pathlib
import sys


def recipes(arguments):
    from training.dino_recipes import DINO_RECIPES
    from training.recipes import EXPERIMENTS, RECIPES

    columns = ("name", "dataset", "backbone", "row", "epochs")
    lines = [("RECIPE", "DATA SET", "BACKBONE", "ROW", "EPOCHS")]
    lines += [
        tuple(str(getattr(recipe, column)) for column in columns)
        for recipe in (*RECIPES.values(), *DINO_RECIPES.values())
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())
    print("\nEXPERIMENT (keras-attn reproduce)")
    print("\n".join(EXPERIMENTS))


def summary(arguments):
    recipe = _recipe(arguments)
    from training.summary import format_summary, summarize

    result = summarize(recipe, arguments.data)
    print(json.dumps(result, indent=2) if arguments.json else format_summary(result))


def train(arguments):
    recipe = _recipe(arguments)
    if recipe.method == "dino":
        return _train_dino(arguments, recipe)
    from training import fit
    from training.resume import load_progress

    run = fit.train(
        recipe, _workdir(arguments), arguments.data, on_corrupt=arguments.on_corrupt
    )
    progress = load_progress(run.checkpoints / "last.npz")
    print(f"\nModel: {run.model_path('best')}")
    for which, epoch in (("best", progress.best_epoch), ("last", -1)):
        logs = progress.history[epoch]
        if "val_logits_accuracy" in logs:
            percent = 100 * logs["val_logits_accuracy"]
            print(
                f"Validation accuracy, {which} epoch ({logs['epoch']}): {percent:.2f} %"
            )
    data = f" --data {arguments.data}" if arguments.data else ""
    print(
        "Next:\n"
        f"  keras-attn evaluate {run.workdir}{data}\n"
        f"  keras-attn predict {run.workdir} IMAGE_OR_FOLDER\n"
        f"  keras-attn explain {run.workdir} IMAGE_OR_FOLDER --output explained\n"
        f"  keras-attn export {run.workdir}"
    )


def _train_dino(arguments, recipe):
    from training.dino import train_dino

    run = train_dino(
        recipe, _workdir(arguments), arguments.data, on_corrupt=arguments.on_corrupt
    )
    print(
        f"\nModel: {run.model_path('last')}\n"
        "Next:\n"
        f"  keras-attn masks {run.workdir} IMAGES --out maps"
    )


def evaluate(arguments):
    from training.evaluate import evaluate, format_evaluation

    result = evaluate(
        arguments.model,
        arguments.split,
        arguments.data,
        arguments.dataset,
        arguments.checkpoint,
        arguments.on_corrupt,
    )
    if arguments.split is None and result["split"] != "test":
        print(
            f"No test images; evaluated on split {result['split']!r}.", file=sys.stderr
        )
    if result["same_data"] is False:
        print(
            "These are not the images that the run was trained on, so another split: "
            "some may have been trained on.",
            file=sys.stderr,
        )
    print(json.dumps(result, indent=2) if arguments.json else format_evaluation(result))


def predict(arguments):
    from training.predict import format_predictions, predict

    predictions, problems = predict(
        arguments.model,
        arguments.images,
        arguments.top,
        arguments.checkpoint,
        arguments.on_corrupt,
    )
    _report_skipped(problems)
    if arguments.json:
        print(json.dumps(predictions, indent=2))
    else:
        print(format_predictions(predictions))


def explain(arguments):
    from training.explain import explain

    written, problems = explain(
        arguments.model,
        arguments.images,
        arguments.output,
        arguments.classes,
        arguments.top,
        arguments.checkpoint,
        arguments.on_corrupt,
    )
    _report_skipped(problems)
    for path in written:
        print(path)


def localize(arguments):
    from training.localize import localize

    result, written, problems = localize(
        arguments.model,
        arguments.images,
        arguments.output,
        arguments.max_patches,
        arguments.iou_threshold,
        arguments.coverage,
        arguments.checkpoint,
        arguments.on_corrupt,
    )
    _report_skipped(problems)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print("\n".join(map(str, written)))


def index(arguments):
    from training.index import format_summary, index_folder

    try:
        summary, problems = index_folder(
            arguments.model,
            arguments.folder,
            arguments.out,
            arguments.index_type,
            arguments.checkpoint,
            arguments.on_corrupt,
            _described,
        )
    except KeyboardInterrupt:
        print("\nWhat was described is kept; repeat to go on.", file=sys.stderr)
        raise
    _report_skipped(problems)
    if arguments.json:
        print(json.dumps(summary, indent=2))
    else:
        print(f"{arguments.out}: {format_summary(summary)}")


def _described(done, total):
    end = "\r" if sys.stderr.isatty() and done < total else "\n"
    text = f"Described {done} of {total} images"
    print(text, end=end, file=sys.stderr, flush=True)


def masks(arguments):
    from training.masks import format_summary, masks

    try:
        summary, problems = masks(
            arguments.model,
            arguments.dataset,
            arguments.out,
            arguments.data,
            arguments.size,
            arguments.network_size,
            arguments.crop_fraction,
            arguments.storage,
            arguments.on_corrupt,
            assignments=arguments.set,
            progress=_described,
        )
    except KeyboardInterrupt:
        print("\nWhat was computed is kept; repeat to go on.", file=sys.stderr)
        raise
    _report_skipped(problems)
    _print(arguments, summary, format_summary)


def retrieval(arguments):
    from training.retrieval import evaluate_retrieval, format_retrieval

    result = evaluate_retrieval(
        arguments.model,
        arguments.ground_truth,
        arguments.images,
        arguments.scales,
        arguments.longest_side,
        arguments.whitening,
        arguments.dimensions,
        arguments.checkpoint,
        _described,
    )
    _print(arguments, result, format_retrieval)


def search(arguments):
    from training.search import format_results, search

    results, written, problems = search(
        arguments.index,
        arguments.images,
        arguments.top,
        arguments.out,
        arguments.model,
        arguments.on_corrupt,
    )
    _report_skipped(problems)
    print(json.dumps(results, indent=2) if arguments.json else format_results(results))
    for path in written:
        print(path, file=sys.stderr if arguments.json else sys.stdout)


def export(arguments):
    from training.serving.export import export

    target = export(
        arguments.model,
        arguments.name,
        arguments.version,
        arguments.output,
        arguments.checkpoint,
    )
    print(
        f"{target}\nSignatures: serving_default (image_bytes: encoded files), "
        "images (images: raw pixels)"
    )


def data(arguments):
    from training.contents import describe

    print(
        describe(
            arguments.name,
            arguments.data,
            arguments.output,
            arguments.examples_per_class,
            arguments.split,
            arguments.on_corrupt,
            arguments.set,
        )
    )


def exit_policy_fit(arguments):
    from training import exit_policy

    summary = exit_policy.fit(arguments.table, arguments.out, arguments.points)
    _print(arguments, summary, exit_policy.format_fit)


def exit_policy_evaluate(arguments):
    from training import exit_policy

    points = exit_policy.evaluate(arguments.policy, arguments.table, arguments.picture)
    _print(arguments, points, exit_policy.format_evaluation)


def exit_policy_judge(arguments):
    from training import exit_judge

    rows = exit_judge.judge(arguments.table, arguments.seeds, arguments.results)
    print(exit_judge.format_judgement(rows))


def exit_policy_table(arguments):
    from training.early_exit import write_table

    table = write_table(
        arguments.model,
        arguments.resized,
        arguments.out,
        arguments.data,
        arguments.split,
        checkpoint=arguments.checkpoint,
        on_corrupt=arguments.on_corrupt,
    )
    images, exits = table["confidence"].shape
    print(f"{arguments.out}: {images} images, {exits} exits")


def exit_policy_model(arguments):
    from training.early_exit import write_model

    rule = write_model(
        arguments.model,
        arguments.resized,
        arguments.policy,
        arguments.budget,
        arguments.out,
        arguments.checkpoint,
    )
    print(f"{arguments.out}: mean cost {rule.cost:.6g} on the table of the policy")


def reproduce(arguments):
    from training.reproduce import reproduce

    reproduce(
        arguments.name,
        arguments.data,
        arguments.workdir,
        arguments.results,
        arguments.seeds,
        arguments.rows,
        arguments.set,
        arguments.on_corrupt,
    )


def demo(arguments):
    from training.demo import demo

    demo(arguments.workdir)


# ---- helpers ------------------------------------------------------------------------


def _print(arguments, result, formatted):
    print(json.dumps(result, indent=2) if arguments.json else formatted(result))


def _recipe(arguments):
    from training.dino_recipes import DINO_RECIPES
    from training.recipe import apply_overrides
    from training.recipes import get_recipe

    assignments = list(arguments.set)
    if getattr(arguments, "mixed_precision", False):
        assignments.append("dtype_policy=mixed_bfloat16")
    recipe = DINO_RECIPES.get(arguments.recipe) or get_recipe(arguments.recipe)
    return apply_overrides(recipe, assignments)


def _workdir(arguments):
    return pathlib.Path(arguments.workdir or pathlib.Path("runs", arguments.recipe))


def _report_skipped(problems):
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)
