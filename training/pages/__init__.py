"""HTML pages that need nothing beside themselves.

Charts and pictures are inside, and a page forbids the browser to load anything.
"""

import base64
import hashlib
import io
import pathlib

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from keras_attn.pipelines.files import write_then_rename
from keras_attn.training.drawing import with_fonts

# Pictures of figures are no wider, in pixels.
WIDEST = 1600
# Images up to this side are kept as they are, and shown with their pixels.
SMALL = 96


def check_name(output):
    """The path of a page to write.

    Raises:
        ValueError: If it is not the name of an HTML file.
    """
    output = pathlib.Path(output)
    if output.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"Expected the name of an HTML file. Received: {output}")
    return output


def write_page(output, template, content):
    """Writes a page that appears only when complete; all text in it is escaped.

    Args:
        output: Path of the page; its folder is made if it does not exist.
        template: File in the folder `templates`.
        content: Dict of the template's variables.

    Returns:
        The path.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = percent
    environment.filters["sortable"] = lambda share: -1 if share is None else share
    script = environment.loader.get_source(environment, "sortable_tables.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(
        content, script=Markup(script), script_digest=digest
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    with write_then_rename(output) as file:
        file.write(page.encode())
    return output


def percent(share, digits=1):
    """A share as text in per cent; a dash without one."""
    return "–" if share is None or np.isnan(share) else f"{100 * share:.{digits}f} %"


def figure_uri(figure):
    """A figure as a data URI."""
    canvas = FigureCanvasAgg(with_fonts(figure))
    canvas.draw()
    return image_uri(np.asarray(canvas.buffer_rgba())[..., :3], WIDEST)


def image_uri(pixels, widest=None):
    """8-bit pixels as a data URI: small ones exact, others as WebP."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if widest and image.width > widest:
        image.thumbnail((widest, image.height))
    content = io.BytesIO()
    kind = "png" if max(image.size) <= SMALL else "webp"
    image.save(content, kind, **({} if kind == "png" else {"quality": 85}))
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
