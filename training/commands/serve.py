"""A local server for exported models, and a client of it and of TensorFlow Serving."""

import json
import sys

from keras_attn.training.commands.arguments import add_json


def add(command):
    added = command(
        serve, "serve exported models on this machine, as TensorFlow Serving would"
    )
    added.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        default="saved_models",
        help="folder with NAME/VERSION/ (saved_models)",
    )
    added.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (127.0.0.1)"
    )
    added.add_argument(
        "--port", type=int, default=8500, help="port for gRPC, 0: a free one (8500)"
    )
    added.add_argument(
        "--rest-port", type=int, default=8501, help="port for REST (8501)"
    )
    added.add_argument(
        "--versions",
        type=int,
        default=1,
        metavar="N",
        help="number of latest versions to serve (1)",
    )
    added.add_argument(
        "--max-batch", type=int, default=32, metavar="N", help="limit of a batch (32)"
    )
    added.add_argument(
        "--batch-timeout-ms",
        type=float,
        default=2.0,
        metavar="MS",
        help="time that a request waits for others to join it (2)",
    )
    added.add_argument(
        "--max-body-mb",
        type=float,
        default=32.0,
        metavar="MB",
        help="limit of a request (32)",
    )
    added.add_argument(
        "--max-pixels",
        type=int,
        default=25_000_000,
        metavar="N",
        help="limit of an image (25000000)",
    )
    added.add_argument(
        "--queue",
        type=int,
        default=256,
        metavar="N",
        help="limit of requests at a time (256)",
    )

    added = command(request, "classes of images, from a server")
    added.add_argument(
        "url",
        metavar="URL",
        help="http://HOST:PORT/v1/models/NAME or grpc://HOST:PORT/NAME; /labels/L",
    )
    added.add_argument("images", metavar="IMAGE", nargs="+", help="images or folders")
    added.add_argument(
        "--model", metavar="NAME", help="name of the model, if not in the URL"
    )
    added.add_argument("--signature", default="serving_default", metavar="NAME")
    added.add_argument(
        "--batch", type=int, default=8, metavar="N", help="images per request (8)"
    )
    added.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="S",
        help="limit of a request in seconds, with its retries (30)",
    )
    added.add_argument(
        "--retries",
        type=int,
        default=3,
        metavar="N",
        help="further attempts while the server is not available (3)",
    )
    add_json(added)


def serve(arguments):
    from keras_attn.training.serving.server.server import serve
    from keras_attn.training.serving.server.settings import Settings

    serve(
        Settings(
            arguments.folder,
            host=arguments.host,
            port=arguments.port,
            rest_port=arguments.rest_port,
            max_batch=arguments.max_batch,
            batch_timeout_ms=arguments.batch_timeout_ms,
            max_body_mb=arguments.max_body_mb,
            max_pixels=arguments.max_pixels,
            queue=arguments.queue,
            versions=arguments.versions,
        )
    )


def request(arguments):
    from keras_attn.training.serving.client import Client, format_answers
    from keras_attn.training.serving.protocols import printable

    failed = False
    with Client(
        arguments.url,
        model=arguments.model,
        signature=arguments.signature,
        timeout=arguments.timeout,
        retries=arguments.retries,
    ) as client:
        for answers in client.classify(arguments.images, arguments.batch):
            good = []
            for answer in answers:
                problem = answer.get("error", answer.get("skipped"))
                if problem is None:
                    good.append(answer)
                else:
                    failed = failed or "error" in answer
                    print(f"{printable(answer['image'])}: {problem}", file=sys.stderr)
            if arguments.json:
                for answer in good:
                    print(json.dumps(answer))
            elif good:
                print(format_answers(good))
            sys.stdout.flush()
    return 1 if failed else 0
