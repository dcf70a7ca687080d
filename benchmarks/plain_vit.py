"""DINO's vision transformer in plain PyTorch, under the names of its checkpoints."""

import math

import torch
from torch import nn
from torch.nn import functional


class VisionTransformer(nn.Module):
    """Images `(batch, 3, height, width)` to tokens, and the last block's attention.

    Args:
        width, depth, heads: Size of the network.
        patch: Side of the patches.
        image: Side of the images that positions are learned for.
        classes: Number of classes, or `None` for no classifier.
        fused: Whether attention that is not returned is computed by PyTorch's
            `scaled_dot_product_attention`, as in timm; else as in the code of DINO's
            authors.
    """

    def __init__(self, width, depth, heads, patch, image, classes=None, fused=True):
        super().__init__()
        self.grid = image // patch
        self.patch = patch
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + self.grid**2, width) / 50)
        self.blocks = nn.ModuleList(Block(width, heads, fused) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Identity() if classes is None else nn.Linear(width, classes)

    def tokens(self, images):
        x = self.patch_embed.proj(images)
        rows, columns = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return x + self.positions(rows, columns)

    def positions(self, rows, columns):
        """Interpolated as in the authors' code, with 0.1 added to the sizes."""
        if rows == columns == self.grid:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid))
        scale = (rows + 0.1) / self.grid, (columns + 0.1) / self.grid
        grid = functional.interpolate(
            grid.permute(0, 3, 1, 2), scale_factor=scale, mode="bicubic"
        )
        assert grid.shape[2:] == (rows, columns)
        grid = grid.permute(0, 2, 3, 1).flatten(1, 2)
        return torch.cat([self.pos_embed[:, :1], grid], dim=1)

    def forward(self, images):
        x = self.tokens(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def last_attention(self, images):
        """All blocks in full, the attention kept on the way."""
        x = self.tokens(images)
        for block in self.blocks[:-1]:
            x = block(x)
        x, attention = self.blocks[-1].with_attention(x)
        return self.head(self.norm(x)[:, 0]), attention


class Block(nn.Module):
    def __init__(self, width, heads, fused):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.Module()
        self.attn.qkv = nn.Linear(width, 3 * width)
        self.attn.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(width, 4 * width)
        self.mlp.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        if not self.fused:
            return self.with_attention(x)[0]
        q, k, v = self.queries_keys_values(x)
        return self.rest(x, functional.scaled_dot_product_attention(q, k, v))

    def with_attention(self, x):
        q, k, v = self.queries_keys_values(x)
        attention = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        return self.rest(x, attention @ v), attention

    def queries_keys_values(self, x):
        parts = self.attn.qkv(self.norm1(x))
        return parts.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def rest(self, x, values):
        x = x + self.attn.proj(values.transpose(1, 2).flatten(2))
        return x + self.mlp.fc2(functional.gelu(self.mlp.fc1(self.norm2(x))))
