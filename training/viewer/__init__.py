"""A page in the browser that shows what trained models see.

`answers` says what a model answers to an image, and in which pictures; `page` puts it
on a page; `server` runs the page for the command `keras-attn view`.
"""
