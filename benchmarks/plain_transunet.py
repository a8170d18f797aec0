"""The published graph of TransUNet R50-ViT-B/16, written plainly: what `benchmarks/transunet.py` measures against.

Softmax attention with its weights in memory, three projections, weights standardised by a mean and a variance, grey
repeated to three colours. The names are those of the published state dict, so the same weights fit both.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional


class StdConv(nn.Conv2d):
    def forward(self, x):
        variance, mean = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-5)
        return functional.conv2d(x, weight, None, self.stride, self.padding)


class Unit(nn.Module):
    def __init__(self, inputs, middle, stride):
        super().__init__()
        outputs = 4 * middle
        self.gn1, self.gn2 = nn.GroupNorm(32, middle, eps=1e-6), nn.GroupNorm(32, middle, eps=1e-6)
        self.gn3 = nn.GroupNorm(32, outputs, eps=1e-6)
        self.conv1 = StdConv(inputs, middle, 1, bias=False)
        self.conv2 = StdConv(middle, middle, 3, stride, 1, bias=False)
        self.conv3 = StdConv(middle, outputs, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        if stride != 1 or inputs != outputs:
            self.downsample = StdConv(inputs, outputs, 1, stride, bias=False)
            self.gn_proj = nn.GroupNorm(outputs, outputs)

    def forward(self, x):
        shortcut = self.gn_proj(self.downsample(x)) if hasattr(self, "downsample") else x
        y = self.relu(self.gn1(self.conv1(x)))
        y = self.relu(self.gn2(self.conv2(y)))
        return self.relu(shortcut + self.gn3(self.conv3(y)))


class Stem(nn.Module):
    def __init__(self):
        super().__init__()
        self.root = nn.Sequential(
            OrderedDict(
                conv=StdConv(3, 64, 7, 2, 3, bias=False), gn=nn.GroupNorm(32, 64, eps=1e-6), relu=nn.ReLU(inplace=True)
            )
        )
        body, inputs = OrderedDict(), 64
        for block, (units, middle) in enumerate(((3, 64), (4, 128), (9, 256)), 1):
            row = OrderedDict()
            for unit in range(1, units + 1):
                row[f"unit{unit}"] = Unit(inputs, middle, 2 if unit == 1 < block else 1)
                inputs = 4 * middle
            body[f"block{block}"] = nn.Sequential(row)
        self.body = nn.Sequential(body)

    def forward(self, x):
        side = x.shape[-1]
        x = self.root(x)
        features = [x]
        x = functional.max_pool2d(x, 3, 2)
        for index, block in enumerate(self.body[:-1]):
            x = block(x)
            size = side // 4 // (index + 1)
            if x.shape[-1] == size:
                padded = x
            else:
                padded = x.new_zeros(x.shape[0], x.shape[1], size, size)
                padded[:, :, : x.shape[2], : x.shape[3]] = x
            features.append(padded)
        return self.body[-1](x), features[::-1]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(768, 768) for _ in range(4))

    def forward(self, x):
        def heads(y):
            return y.view(*y.shape[:2], 12, 64).permute(0, 2, 1, 3)

        query, key, value = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        weights = (query @ key.transpose(-1, -2) / math.sqrt(64)).softmax(-1)
        mixed = (weights @ value).permute(0, 2, 1, 3).contiguous()
        return self.out(mixed.view(*x.shape))


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.dropout = nn.Linear(768, 3072), nn.Linear(3072, 768), nn.Dropout(0.1)

    def forward(self, x):
        return self.dropout(self.fc2(self.dropout(functional.gelu(self.fc1(x)))))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.LayerNorm(768, eps=1e-6), nn.LayerNorm(768, eps=1e-6)
        self.ffn, self.attn = FeedForward(), Attention()

    def forward(self, x):
        x = x + self.attn(self.attention_norm(x))
        return x + self.ffn(self.ffn_norm(x))


class Embeddings(nn.Module):
    def __init__(self):
        super().__init__()
        self.hybrid_model, self.patch_embeddings = Stem(), nn.Conv2d(1024, 768, 1)
        self.position_embeddings, self.dropout = nn.Parameter(torch.zeros(1, 196, 768)), nn.Dropout(0.1)

    def forward(self, x):
        x, features = self.hybrid_model(x)
        x = self.patch_embeddings(x).flatten(2).transpose(-1, -2)
        return self.dropout(x + self.position_embeddings), features


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.encoder_norm = nn.ModuleList(Layer() for _ in range(12)), nn.LayerNorm(768, eps=1e-6)

    def forward(self, x):
        for layer in self.layer:
            x = layer(x)
        return self.encoder_norm(x)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings, self.encoder = Embeddings(), Encoder()

    def forward(self, x):
        x, features = self.embeddings(x)
        return self.encoder(x), features


def conv(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Stage(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1, self.conv2 = conv(inputs, outputs), conv(outputs, outputs)
        self.up = nn.UpsamplingBilinear2d(scale_factor=2)

    def forward(self, x, skip):
        x = self.up(x)
        return self.conv2(self.conv1(x if skip is None else torch.cat([x, skip], 1)))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_more = conv(768, 512)
        self.blocks = nn.ModuleList((Stage(1024, 256), Stage(512, 128), Stage(192, 64), Stage(64, 16)))

    def forward(self, tokens, features):
        x = self.conv_more(tokens.permute(0, 2, 1).contiguous().view(len(tokens), 768, 14, 14))
        for index, block in enumerate(self.blocks):
            x = block(x, features[index] if index < 3 else None)
        return x


class PlainTransUNet(nn.Module):
    """R50-ViT-B/16 at 224 pixels.

    Args:
        classes: channels of logits.
    """

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.transformer, self.decoder = Transformer(), Decoder()
        self.segmentation_head = nn.Sequential(nn.Conv2d(16, classes, 3, padding=1))

    def forward(self, x):
        tokens, features = self.transformer(x.repeat(1, 3, 1, 1) if x.shape[1] == 1 else x)
        return self.segmentation_head(self.decoder(tokens, features))
