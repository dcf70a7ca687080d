"""The page in a browser: an upload, its answer, keys, a phone's width, no network."""

import shutil
import threading

import pytest

from keras_attn.training.evaluation.predict import predict
from tests.training import tiny_models as tiny
from tests.training.viewer.tiny import app_of

PATIENCE = 60_000


def chromium():
    """Path of an installed Chromium, or why there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return shutil.which(name)
    pytest.skip("Chromium is not installed (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser():
    path = chromium()
    reason = "playwright is not installed (pip install playwright)"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    with playwright.sync_playwright() as started:
        # Whatever looks for another machine finds none.
        nowhere = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        launched = started.chromium.launch(
            executable_path=path, args=["--no-sandbox", nowhere]
        )
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    tiny.save_image(folder / "red.png", tiny.plain_image(red=180, green=120))
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def address(place):
    app, _ = app_of(place)
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()


@pytest.fixture
def page(browser, address):
    """The page, and in `page.asked` all that it asked for."""
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    opened.set_default_timeout(PATIENCE)
    opened.asked, opened.complaints = [], []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.on("console", lambda message: opened.complaints.append(message.text))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.goto(address)
    yield opened
    assert not opened.complaints
    local = (address, "data:", "blob:")
    assert opened.asked and all(url.startswith(local) for url in opened.asked)
    opened.close()


def choose(page, name):
    """Chooses a model by the end of its name and gives the name."""
    values = page.locator("#model option").evaluate_all("all => all.map(o => o.value)")
    (value,) = (each for each in values if each.endswith(name))
    page.select_option("#model", value)
    return value


def scrolls_sideways(page):
    return page.evaluate("document.documentElement.scrollWidth > innerWidth")


def test_an_upload_is_answered_as_predict_does(page, place, tmp_path):
    page.set_input_files("#file", place / "red.png")
    assert page.locator(".preview").is_visible()
    model = choose(page, "colours.keras")
    page.get_by_role("button", name="Run").click(no_wait_after=True)
    page.wait_for_selector("article")
    ((expected,), _) = predict(model, [place / "red.png"])
    best = expected["predictions"][0]
    assert page.locator(".predicted strong").inner_text() == best["class"]
    shown = page.locator(".bars .percent").first.inner_text()
    assert shown == f"{100 * best['probability']:.1f} %"
    # All pictures have arrived.
    widths = page.locator("article img").evaluate_all(
        "all => all.map(i => i.naturalWidth)"
    )
    assert len(widths) > 4 and min(widths) > 50
    picture = tmp_path / "page.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 20_000
    # On a phone nothing is cut off at the side.
    page.set_viewport_size({"width": 375, "height": 700})
    assert not scrolls_sideways(page)
    page.goto(f"{page.url.split('?')[0]}mistakes")
    assert not scrolls_sideways(page)


def test_a_bad_upload_gets_one_message_and_the_page_lives_on(page, place):
    page.set_input_files("#file", place / "broken.png")
    page.get_by_role("button", name="Run").click(no_wait_after=True)
    message = page.get_by_role("alert")
    assert message.inner_text().startswith("broken.png: not an image")
    # Chromium itself notes the answer's status.
    page.complaints.clear()
    page.set_input_files("#file", place / "red.png")
    page.get_by_role("button", name="Run").click(no_wait_after=True)
    page.wait_for_selector("article")
    assert page.get_by_role("alert").count() == 0


def test_keys_alone_reach_everything_in_order(page, place):
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.name ||"
                " document.activeElement.textContent.trim()"
            )
        )
        if reached[-1] == "Run":
            break
    assert reached == [
        "Skip to the answer",
        "An image",
        "Worst mistakes",
        "file",
        "example",
        "model",
        "second",
        "Run",
    ]
    # With the keys alone: pick the example, run it.
    for _ in range(3):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_selector("article")
    assert page.locator(".predicted strong").first.inner_text() == "blue"


def test_every_control_has_a_name(page):
    names = page.locator("input:visible, select, button").evaluate_all(
        "all => all.map(e => (e.labels?.length ? e.labels[0].textContent.trim() ||"
        " e.labels[0].querySelector('img').alt : e.textContent).trim())"
    )
    assert len(names) == 5 and all(names)
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1
