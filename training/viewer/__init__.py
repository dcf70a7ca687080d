"""A page in the browser with the answers of trained models and their explanations.

`answers` holds the answer of a model to an image, with its pictures; `page` puts it on
a page; `server` runs the page for the command `keras-attn view`.
"""
