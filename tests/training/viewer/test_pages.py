"""The page by its requests and their responses."""

import html
import io
import re

import pytest

from keras_attn.training.evaluation.predict import predict
from keras_attn.training.viewer import page, uploads
from tests.training import tiny_models as tiny
from tests.training.viewer.tiny import app_of, encoded

RED = encoded(tiny.plain_image(red=200))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def app(place):
    return app_of(place)[0]


@pytest.fixture
def client(app):
    return app.test_client()


def name_of(client, which):
    """The name of a model: its path, which is where the test keeps it."""
    text = client.get("/").text
    return re.search(rf'<option value="([^"]*{which}.keras)"', text)[1]


def send(client, data, name="red.png", **fields):
    fields["file"] = (io.BytesIO(data), name)
    return client.post("/", data=fields, follow_redirects=True)


def alert(response):
    (message,) = re.findall(r'role="alert">(.*?)</p>', response.text)
    return html.unescape(message)


def test_an_upload_is_answered_as_predict_does(client, place):
    model = name_of(client, "colours")
    response = send(client, RED, model=model)
    assert response.status_code == 200
    (place / "red.png").write_bytes(RED)
    ((expected,), _) = predict(model, [place / "red.png"])
    shown = re.findall(
        r'"name">(.*?)</span>.*?"percent">(.*?)</span>', response.text, re.S
    )
    assert shown == [
        (each["class"], f"{100 * each['probability']:.1f} %")
        for each in expected["predictions"]
    ]
    # The address keeps what is shown.
    again = client.get(response.request.url)
    assert again.text == response.text
    assert "red.png is used again" in again.text


def test_two_models_and_an_example(client):
    (token,) = re.findall(r'name="example" value="(\w+)"', client.get("/").text)
    fields = {
        "example": token,
        "model": name_of(client, "colours"),
        "second": name_of(client, "localizer"),
    }
    response = client.post("/", data=fields, follow_redirects=True)
    assert "Both models answer <strong>blue</strong>" in response.text
    assert "Class-embedding maps" in response.text
    assert "Patches and their evidence" in response.text
    # Every picture says what is in it; only the empty preview says nothing.
    images = re.findall(r"<img [^>]*>", response.text)
    silent = [each for each in images if not re.search(r'alt="[^"]+"', each)]
    assert len(images) > 8 and len(silent) == 1 and "hidden" in silent[0]
    headings = re.findall(r"<h(\d)", response.text)
    assert headings[:3] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "data, name, message",
    [
        (b"", "", "Choose an image"),
        (b"", "a.png", "a.png: the file is empty"),
        (b"GIF89a" + bytes(9), "<b>.gif", "<b>.gif: not an image"),
        (RED[: len(RED) // 2], "cut.png", "cut.png: truncated or damaged"),
    ],
)
def test_bad_uploads_get_one_message_and_the_page_lives_on(client, data, name, message):
    response = send(client, data, name)
    assert alert(response).startswith(message)
    assert "<b>" not in response.text
    assert "<article" not in response.text and "<form" in response.text
    assert send(client, RED).text.count("<article") == 1


def test_too_large_uploads_are_refused(client, monkeypatch):
    response = send(client, bytes(uploads.MAX_BYTES + page.FORM_BYTES), "large.png")
    assert response.status_code == 413
    assert alert(response) == "The upload is larger than 20 MB."


def test_an_image_that_is_gone_and_a_model_that_is_none(client):
    response = client.get("/?image=unknown")
    assert alert(response) == "That image is not kept any more. Choose it again."
    for address in ("/?model=/etc/passwd", "/mistakes?model=x", "/nothing", "/static/"):
        response = client.get(address)
        assert response.status_code == 404 and alert(response)
    assert client.get("/mistakes?most=-1").status_code == 400


def test_only_the_page_itself_is_served(client):
    for address in ("/static/../page.py", "/static/%2e%2e/page.py"):
        response = client.get(address)
        assert response.status_code in (308, 404), address
        assert "import flask" not in response.text


def test_other_sites_are_kept_out(client):
    response = client.get("/", headers={"Host": "evil.example"})
    assert response.status_code == 400
    response = client.post("/", headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status_code == 403
    policy = client.get("/").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_a_defect_is_told_and_no_more(client, monkeypatch):
    monkeypatch.setattr(page, "answer", lambda *given: 1 / 0)
    response = send(client, encoded(tiny.plain_image(green=3)))
    assert response.status_code == 500
    assert alert(response) == "That failed: ZeroDivisionError. See the terminal."


def test_a_model_that_cannot_be_used_says_why(client, monkeypatch):
    def broken(*given):
        raise ValueError("Expected finite outputs. Received: NaN")

    monkeypatch.setattr(page, "answer", broken)
    response = send(client, encoded(tiny.plain_image(green=4)))
    assert alert(response) == "Expected finite outputs. Received: NaN"


def test_the_page_needs_no_other_machine(client):
    text = send(client, RED).text
    for folder in ("templates", "static"):
        for file in (page.pathlib.Path(page.__file__).parent / folder).iterdir():
            text += file.read_text()
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
