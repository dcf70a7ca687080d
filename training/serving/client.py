"""A client of servers with TensorFlow Serving's protocols."""

import pathlib
import re
import time
import urllib.parse

from keras_attn.pipelines.images.files import image_files
from keras_attn.pipelines.images.headers import SUFFIXES, converted
from keras_attn.training.serving.protocols import (
    GrpcServer,
    Refused,
    RestServer,
    Unavailable,
    printable,
)

# Seconds before the first retry, doubled each time, and at most.
BACKOFF = (0.2, 5.0)
# Bytes of images per request: as base64 they fit into the 32 MB of the local server.
MAX_IMAGES = 20 * 2**20
# Refusals in a row, all for one reason, after which no more images are sent.
ENOUGH = 32
# Names that outputs of models may not have in an answer.
RESERVED = ("image", "error", "skipped")


class Client:
    """Sends image files to a served model.

    Args:
        url: `http://HOST:PORT/v1/models/NAME[/versions/N]`, `grpc://HOST:PORT/NAME[/N]`,
            or either without the path and with `model`; with `/labels/LABEL` for the
            version of a label.
        model: Name of the model if the URL has none.
        signature: Signature of the model that takes one input, encoded images.
        timeout: Limit of a request in seconds, with its retries and its whole answer.
        retries: Number of further attempts while the server is not available.
        sleep: Function that waits for a number of seconds.

    Raises:
        ValueError: For another kind of URL.
        ImportError: For gRPC without its packages.

    Example:

    >>> with Client("http://localhost:8501/v1/models/flowers") as client:
    ...     for answers in client.classify(["rose.jpg"]):
    ...         print(answers[0]["class"])
    """

    def __init__(
        self,
        url,
        model=None,
        signature="serving_default",
        timeout=30.0,
        retries=3,
        sleep=time.sleep,
    ):
        if not timeout > 0 or retries < 0:
            raise ValueError(
                "Expected `timeout` above 0 and `retries` of at least 0. "
                f"Received: timeout={timeout}, retries={retries}"
            )
        self._retries = retries
        self._timeout = timeout
        self._sleep = sleep
        scheme, address, *model = _split(url, model)
        kind = {"grpc": GrpcServer}.get(scheme, RestServer)
        self._server = kind(scheme, address, *model, signature)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Ends the connection."""
        self._server.close()

    def classify(self, images, batch_size=8):
        """The model's outputs for image files, TIFF, AVIF and HEIC converted to PNG.

        Args:
            images: Paths of images, and of folders of images.
            batch_size: Images per request; large ones are fewer.

        Yields:
            Per request a list with a dict for each image: its path as `image` and the
            outputs by name; binary ones are `{"b64": ...}`. An image that the server
            refuses has the reason as `error` instead, and what is no file inside a
            folder has one as `skipped`.

        Raises:
            FileNotFoundError: If an image is not there.
            ValueError: If the server refuses all images.
            OSError: If it cannot be reached, takes too long or fails.
        """
        if batch_size < 1:
            raise ValueError(
                f"Expected a batch of at least 1. Received: batch_size={batch_size}"
            )
        files = image_files(images)
        if skipped := list(_skipped(images)):
            yield skipped
        answered, refused = False, []
        for part, unreadable in _parts(files, batch_size):
            answers = (self._answers(part) if part else []) + unreadable
            answered = answered or any("error" not in answer for answer in answers)
            if answered:
                yield refused + answers
                refused = []
                continue
            refused += answers
            reasons = {answer["error"] for answer in refused}
            if len(refused) >= ENOUGH and len(reasons) == 1:
                break
        if not answered and refused:
            if len(refused) > 1:
                yield refused
            raise ValueError("{image}: {error}".format(**refused[0]))

    def _answers(self, part):
        """Answers for pairs of a path and its content.

        A request that is refused is sent again in halves, so that one bad image is
        refused alone.
        """
        try:
            rows = self._ask([data for _, data in part])
        except Refused as error:
            if len(part) == 1:
                return [{"image": str(part[0][0]), "error": error.reason}]
            middle = len(part) // 2
            return self._answers(part[:middle]) + self._answers(part[middle:])
        if len(rows) != len(part):
            raise OSError(
                f"Expected {len(part)} answers from the server. Received: {len(rows)}"
            )
        return [
            {"image": str(file)}
            | {f"output_{k}" if k in RESERVED else k: v for k, v in row.items()}
            for (file, _), row in zip(part, rows, strict=True)
        ]

    def _ask(self, contents):
        wait, longest = BACKOFF
        end = time.monotonic() + self._timeout
        for attempt in range(self._retries + 1):
            try:
                return self._server.predict(contents, end - time.monotonic())
            except Unavailable:
                if attempt == self._retries or time.monotonic() + wait >= end:
                    raise
            self._sleep(wait)
            wait = min(2 * wait, longest)


def _skipped(images):
    for path in map(pathlib.Path, images):
        for inside in sorted(path.rglob("*")) if path.is_dir() else ():
            if inside.suffix.lower() in SUFFIXES and not inside.is_file():
                yield {"image": str(inside), "skipped": "not a file"}


def _parts(files, batch_size):
    """Pairs of what a request holds, and of answers for files that cannot be read."""
    part, unreadable, size = [], [], 0
    for file in files:
        try:
            if not file.is_file():
                raise OSError("not a file")
            data, reason = converted(file.read_bytes())
        except OSError as error:
            data, reason = b"", f"cannot be read ({error.strerror or error})"
        if reason:
            unreadable.append({"image": str(file), "error": reason})
            continue
        if part and (len(part) == batch_size or size + len(data) > MAX_IMAGES):
            yield part, unreadable
            part, unreadable, size = [], [], 0
        part.append((file, data))
        size += len(data)
    if part or unreadable:
        yield part, unreadable


def format_answers(answers):
    """Lines of file, probability and class, or the names of other outputs."""
    images = [printable(answer["image"]) for answer in answers]
    width = max(map(len, images), default=0)
    lines = []
    for image, answer in zip(images, answers, strict=True):
        try:
            percent = 100 * max(answer["probabilities"])
            text = f"{percent:6.2f} %  {printable(answer['class'])}"
            if "labels" in answer:
                text += f"  [{printable(answer['labels']).replace(';', ', ')}]"
        except (KeyError, TypeError, ValueError):
            names = ", ".join(name for name in answer if name != "image")
            text = f"{printable(names)}; --json prints them"
        lines.append(f"{image:<{width}}  {text}")
    return "\n".join(lines)


def _split(url, model):
    """Scheme, address, model, version and label of a URL."""
    if "://" not in url:
        url = f"grpc://{url}"
    parts = urllib.parse.urlsplit(url)
    path = re.fullmatch(
        r"(?i)(?:/v1/models)?/([^/:]+)(?:(?:/versions)?/(\d+)|/labels/([^/:]+))?"
        r"(?::predict)?/?",
        parts.path,
    )
    named = path is not None or parts.path in ("", "/")
    if parts.scheme not in ("http", "https", "grpc") or not parts.netloc or not named:
        raise ValueError(
            "Expected http://HOST:PORT/v1/models/NAME or grpc://HOST:PORT/NAME. "
            f"Received: {url}"
        )
    name, version, label = path.groups() if path else (None, None, None)
    if not (model or name) or model and name and model != name:
        raise ValueError(
            "Expected the name of one model, in the URL or as --model. "
            f"Received: {url}, {model or 'no --model'}"
        )
    return parts.scheme, parts.netloc, model or name, version, label
