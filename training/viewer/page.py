"""The page: addresses, forms and messages around the answers.

Everything on it comes from this process: no address of another machine is in it, and
its security policy forbids the browser to request one.
"""

import collections
import pathlib
from typing import NamedTuple

import flask
from werkzeug.exceptions import HTTPException, SecurityError

from keras_attn.training.evaluation.evaluate import OTHER_DATA
from keras_attn.training.viewer.answers import answer
from keras_attn.training.viewer.mistakes import MOST_IMAGES
from keras_attn.training.viewer.uploads import (
    MAX_BYTES,
    Upload,
    UploadError,
    UploadStore,
    check_upload,
    data_address,
    png,
    thumbnail,
)

KEPT_ANSWERS = 32
# Beside the image there are the other fields of the form, and their frames.
FORM_BYTES = 64 * 2**10
POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
TOO_LARGE = f"The upload is larger than {MAX_BYTES // 2**20} MB."


class Example(NamedTuple):
    """An image to pick from, and the address of its thumbnail."""

    upload: Upload
    thumbnail: str


class ShownMistake(NamedTuple):
    """A mistake as the page shows it.

    Args:
        token: Token of its image as an upload.
        source: Address of its image.
        label, predicted: Names of its class and of the predicted one; of a model of
            labels, where one of them is wrong or missed, the other is empty.
        probability: Probability of the wrong answer.
    """

    token: str
    source: str
    label: str
    predicted: str
    probability: float


class Viewer:
    """The page's models, images and answers.

    Args:
        library: `keras_attn.training.viewer.library.Library`.
        searches: `keras_attn.training.viewer.mistakes.Searches`.
        examples: Paths of images to pick from.
        neighbours: `keras_attn.training.viewer.neighbours.Neighbours`, or `None`.
    """

    def __init__(self, library, searches, examples=(), neighbours=None):
        self.library = library
        self.searches = searches
        self.neighbours = neighbours
        self.uploads = UploadStore()
        self.examples = dict(_examples(examples))
        self._answers = collections.OrderedDict()

    def upload(self, token):
        """The `Upload` of a token: an example's or that of a visitor."""
        if token in self.examples:
            return self.examples[token].upload
        return self.uploads.get(token)

    def answer(self, token, name):
        """The `ViewerAnswer` of a model to an upload, computed once."""
        upload = self.upload(token)
        return self._once(
            (token, name),
            lambda: answer(self.library.load(name), upload, name),
        )

    def nearest(self, token):
        """The `Section` of the nearest images, or `None` without an index."""
        if self.neighbours is None:
            return None
        upload = self.upload(token)
        return self._once((token, None), lambda: self.neighbours.section(upload))

    def _once(self, key, make):
        # The library's lock, for the cache and the models: a page waits for another
        # page's explanation, and none is computed twice.
        with self.library.lock:
            if key not in self._answers:
                self._answers[key] = make()
            self._answers.move_to_end(key)
            if len(self._answers) > KEPT_ANSWERS:
                self._answers.popitem(last=False)
            return self._answers[key]


def make_app(viewer):
    """The Flask application of a `Viewer`."""
    app = flask.Flask(__name__)
    app.config.update(
        MAX_CONTENT_LENGTH=MAX_BYTES + FORM_BYTES,
        # Names that only this machine has, so that no other site can pose as it.
        TRUSTED_HOSTS=["127.0.0.1", "localhost"],
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.before_request(_check_origin)
    app.after_request(_secured)
    _add_look(app, viewer)
    _add_mistakes(app, viewer)

    @app.errorhandler(Exception)
    def failed(error):
        return _failed(viewer, error)

    return app


def _add_look(app, viewer):
    """Adds the panel that shows an image, and takes new ones."""

    @app.get("/")
    def look():
        chosen = flask.request.args
        return _look(viewer, chosen.get("image"), *_models(viewer, chosen))

    @app.post("/")
    def run():
        chosen = flask.request.form
        names = _models(viewer, chosen)
        try:
            token = _received(viewer, flask.request)
        except UploadError as error:
            return _look(viewer, None, *names, message=str(error)), 400
        # The address then names the image and the models: it can be reloaded and kept.
        return flask.redirect(
            flask.url_for(
                "look",
                image=token,
                model=names[0],
                second=names[1] or None,
                _anchor="answer",
            ),
            303,
        )


def _add_mistakes(app, viewer):
    """Adds the panel that searches a model's mistakes and shows them."""

    @app.get("/mistakes")
    def mistakes():
        name, _ = _models(viewer, flask.request.args)
        most = _most(flask.request.args)
        search = viewer.searches.get(name, most)
        return _mistakes(viewer, name, most, search)

    @app.post("/mistakes")
    def search():
        name, _ = _models(viewer, flask.request.form)
        most = _most(flask.request.form)
        viewer.searches.start(name, most)
        return flask.redirect(
            flask.url_for("mistakes", model=name, most=most, _anchor="answer"), 303
        )

    @app.get("/mistakes/progress")
    def progress():
        name, _ = _models(viewer, flask.request.args)
        found = viewer.searches.get(name, _most(flask.request.args))
        if found is None:
            flask.abort(404)
        return {
            "running": found.running,
            "done": found.done,
            "total": found.total,
            "text": _progress_text(found),
        }


# ---- answers to requests -----------------------------------------------------------


def _look(viewer, token, model, second, message=""):
    answers, nearest, upload = [], None, None
    try:
        if token:
            upload = viewer.upload(token)
            names = dict.fromkeys(filter(None, (model, second)))
            answers = [viewer.answer(token, name) for name in names]
            nearest = viewer.nearest(token)
    except (ValueError, OSError) as error:
        message, answers = message or str(error), []
        if isinstance(error, UploadError):
            token, upload = None, None
    return flask.render_template(
        "look.html",
        viewer=viewer,
        token=token,
        upload=upload,
        model=model,
        second=second,
        answers=answers,
        nearest=nearest,
        message=message,
        megabytes=MAX_BYTES // 2**20,
    )


def _mistakes(viewer, model, most, search):
    shown = []
    if search is not None and search.state == "done":
        names = viewer.library.load(model).class_names
        for mistake, file in zip(search.mistakes, search.names, strict=True):
            encoded = png(mistake.image)
            upload = check_upload(encoded, file)
            shown.append(
                ShownMistake(
                    viewer.uploads.add(upload),
                    data_address(encoded),
                    *(
                        "" if label is None else names[label]
                        for label in (mistake.label, mistake.predicted)
                    ),
                    mistake.probability,
                )
            )
    return flask.render_template(
        "mistakes.html",
        viewer=viewer,
        model=model,
        most=most,
        search=search,
        mistakes=shown,
        text=_progress_text(search) if search else "",
    )


def _failed(viewer, error):
    """A page with one message, for any error."""
    if isinstance(error, SecurityError):
        # A request to another host has no addresses of this one to put on a page.
        return "This page is at 127.0.0.1 and localhost only.\n", 400
    if isinstance(error, HTTPException):
        code = error.code
        message = TOO_LARGE if code == 413 else error.description
    else:
        flask.current_app.logger.error("Unexpected error", exc_info=error)
        code, message = 500, f"That failed: {type(error).__name__}. See the terminal."
    return _look(viewer, None, viewer.library.names[0], "", message), code


def _check_origin():
    """Refuses forms that pages of other sites send."""
    site = flask.request.headers.get("Sec-Fetch-Site", "none")
    if flask.request.method == "POST" and site not in ("same-origin", "none"):
        flask.abort(403, "This form was sent by another site.")


def _secured(response):
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response


# ---- forms -------------------------------------------------------------------------


def _models(viewer, fields):
    """The names of the model and of the second one, `""` for none."""
    name = fields.get("model") or viewer.library.names[0]
    second = fields.get("second") or ""
    for each in filter(None, (name, second)):
        if each not in viewer.library.names:
            flask.abort(404, f"There is no model {each!r} here.")
    return name, second


def _most(fields):
    try:
        most = int(fields.get("most") or MOST_IMAGES)
    except ValueError:
        most = 0
    if not 1 <= most <= 10**6:
        flask.abort(400, "Expected a number of images from 1 to 1000000.")
    return most


def _received(viewer, request):
    """The token of the image in a form: a file, an example or the last one."""
    file = request.files.get("file")
    if file is not None and file.filename:
        # One byte more than is allowed shows that there is more.
        upload = check_upload(file.stream.read(MAX_BYTES + 1), file.filename)
        return viewer.uploads.add(upload)
    token = request.form.get("example") or request.form.get("image")
    if not token:
        raise UploadError("Choose an image, or pick an example.")
    viewer.upload(token)
    return token


def _examples(paths):
    """Pairs of token and `Example`; damaged images are left out."""
    for path in map(pathlib.Path, paths):
        try:
            upload = check_upload(path.read_bytes(), path.name)
        except (UploadError, OSError):
            continue
        small = thumbnail(upload.data, upload.name)
        if small is not None:
            yield upload.token, Example(upload, data_address(small))


def _progress_text(search):
    if search.state == "loading":
        return "Loading the images"
    if search.state == "evaluating":
        return f"Evaluated {search.done} of {search.total} images"
    if search.state == "failed":
        return f"That failed: {search.error}"
    wrong, right = "were taken for another class", "accuracy"
    if search.several_labels:
        wrong, right = "got a wrong label, or lack one", "all right"
    text = (
        f"{search.wrong} of {search.total} images of the {search.split} split {wrong} "
        f"({right} {100 * search.accuracy:.1f} %)."
    )
    if search.same_data is False:
        text += f" {OTHER_DATA}"
    return text
