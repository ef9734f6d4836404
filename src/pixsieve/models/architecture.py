"""What a transformer is made of, read from a model folder's configuration and tensor names.

One description serves CLIP and SigLIP as Hugging Face lays them out, CLIP as OpenCLIP does, and
DINOv2. Sizes are taken from the tensors themselves; the configuration only says what they cannot:
heads, activation, epsilon, and how the vector is taken out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pixsieve.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixsieve.models.folder import ModelFolder
    from pixsieve.models.weights import Tensor

    Config = Mapping[str, object]
    Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Linear:
    """``x @ weight.T + bias``.

    Attributes:
        weight: Name of the tensor (out, in).
        bias: Name of the tensor (out,), or ``None``.
        third: Which third of the rows is meant, where query, key and value are stacked.
        transposed: The tensor is (in, out).
    """

    weight: str
    bias: str | None = None
    third: int | None = None
    transposed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One layer: ``x += scale1 * attention(norm1(x)); x += scale2 * mlp(norm2(x))``.

    ``up`` is followed by the activation; with ``gated`` its first half goes through SiLU and
    multiplies the second.
    """

    norm1: str
    query: Linear
    key: Linear
    value: Linear
    out: Linear
    norm2: str
    up: Linear
    down: Linear
    scale1: str | None = None
    scale2: str | None = None
    gated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionPool:
    """SigLIP's head: a learned probe attends to all tokens, then a residual MLP."""

    probe: str
    query: Linear
    key: Linear
    value: Linear
    out: Linear
    norm: str
    up: Linear
    down: Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Vision:
    """An image tower.

    Attributes:
        patches: Convolution (width, 3, patch, patch) and its bias.
        positions: (tokens, width), with or without a leading 1; the class token's comes first.
        class_token: (width,) in any shape, or ``None``: then the head pools.
        registers: Tokens after the class token that have no position.
        antialias: How positions are resized to another grid than the model's own.
        pre_norm: Norm before the first layer.
        post_norm: Norm after the last layer.
        projection: Applied to the pooled token.
        dim: Length of the embedding.
    """

    patches: Linear
    positions: str
    class_token: str | None
    registers: str | None
    antialias: bool
    pre_norm: str | None
    blocks: tuple[Block, ...]
    post_norm: str
    head: AttentionPool | None
    projection: Linear | None
    heads: int
    activation: str
    eps: float
    patch: int
    width: int
    dim: int
    resizes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text tower.

    Attributes:
        tokens: (vocabulary, width).
        positions: (context, width).
        eos: Id whose first place is pooled; ``None``: the largest id's; used if ``causal``.
        causal: Tokens see only what is before them, and the pooled one is the end of the text;
            otherwise all see all, and the last one is pooled.
    """

    tokens: str
    positions: str
    blocks: tuple[Block, ...]
    post_norm: str
    projection: Linear | None
    heads: int
    activation: str
    eps: float
    eos: int | None
    causal: bool
    context: int
    width: int
    vocabulary: int
    dim: int


NATIVE: Final = frozenset({"clip", "open_clip", "siglip", "dinov2", "dinov2_with_registers"})
"""``model_type`` of the folders whose graphs are built here."""
WITH_TEXT: Final = frozenset({"clip", "open_clip", "siglip"})
"""Those of them that have a text tower."""


def model_type(folder: ModelFolder) -> str:
    """Return the architecture that a folder's configuration names."""
    return "open_clip" if folder.kind == "open_clip" else str(folder.config().get("model_type"))


def vision(folder: ModelFolder, tensors: Tensors) -> Vision:
    """Describe the image tower of a folder.

    Raises:
        UsageError: if its files do not fit together, or ask for what is not built here.
    """
    kind, config = model_type(folder), folder.config()
    read = _Reader(folder, tensors)
    if kind == "clip":
        return _clip_vision(read, _part(config, "vision_config"))
    if kind == "siglip":
        return _siglip_vision(read, _part(config, "vision_config"))
    if kind == "open_clip":
        model = _open_clip_config(read, config)
        return _open_clip_vision(read, model)
    return _dinov2(read, config, registers=kind == "dinov2_with_registers")


def text(folder: ModelFolder, tensors: Tensors) -> Text:
    """Describe the text tower of a folder.

    Raises:
        UsageError: if it has none, or one that is not built here.
    """
    check_text(folder)
    kind, config = model_type(folder), folder.config()
    read = _Reader(folder, tensors)
    if kind == "clip":
        return _clip_text(read, _part(config, "text_config"))
    if kind == "siglip":
        return _siglip_text(read, _part(config, "text_config"))
    return _open_clip_text(read, _open_clip_config(read, config))


def check_text(folder: ModelFolder) -> None:
    """Raise ``UsageError`` unless a folder's model has a text tower that is built here."""
    kind = "onnx" if folder.kind == "onnx" else model_type(folder)
    if kind not in WITH_TEXT:
        msg = (
            f"{folder.name} ({kind}) has no text tower that pixsieve knows; captions need a CLIP, "
            f"OpenCLIP or SigLIP model, such as openai/clip-vit-base-patch32"
        )
        raise UsageError(msg)


def check_size(tower: Vision, tensors: Tensors, size: tuple[int, int]) -> None:
    """Raise ``UsageError`` unless the model can look at images of (height, width)."""
    positions = tensors[tower.positions].shape[-2] - (tower.class_token is not None)
    rows, columns = (side // tower.patch for side in size)
    side = round(positions**0.5)
    if rows * columns == 0 or side * side != positions:
        fits = False
    else:
        fits = tower.resizes or (rows, columns) == (side, side)
    if not fits:
        msg = (
            f"the model looks at {positions} patches of {tower.patch} pixels, images of "
            f"{size[0]}x{size[1]} have {rows}x{columns}: the processor's size is not the model's"
        )
        raise UsageError(msg)


class _Reader:
    """Looks up tensors, and says which one is missing."""

    def __init__(self, folder: ModelFolder, tensors: Tensors) -> None:
        self.folder = folder
        self.tensors = tensors

    def shape(self, name: str, rank: int) -> tuple[int, ...]:
        """Return the shape of a tensor, which has so many axes."""
        if name not in self.tensors:
            msg = (
                f"{self.folder.path}: the weights have no tensor {name}; expected those of the "
                f"architecture that the configuration names ({model_type(self.folder)})"
            )
            raise UsageError(msg)
        shape = self.tensors[name].shape
        if len(shape) != rank or 0 in shape:
            msg = f"{self.folder.path}: tensor {name} has the shape {shape}; expected {rank} axes"
            raise UsageError(msg)
        return shape

    def layers(self, pattern: str, config: Config, setting: str) -> int:
        """Count the layers, whose tensors are named by a pattern with ``{}``."""
        count = 0
        while pattern.format(count) in self.tensors:
            count += 1
        stated = config.get(setting, count)
        if count == 0 or stated != count:
            msg = (
                f"{self.folder.path}: the weights have {count} layers {pattern.format('N')}, "
                f"the configuration says {setting}={stated}"
            )
            raise UsageError(msg)
        return count

    def heads(self, width: int, heads: object) -> int:
        if not isinstance(heads, int) or heads < 1 or width % heads:
            msg = f"{self.folder.path}: {heads!r} attention heads do not divide a width of {width}"
            raise UsageError(msg)
        return heads

    def activation(self, name: object) -> str:
        if name not in {"gelu", "quick_gelu", "gelu_pytorch_tanh", "gelu_new"}:
            msg = f"{self.folder.path}: the activation {name!r} is not known"
            raise UsageError(msg)
        return "gelu_tanh" if name in {"gelu_pytorch_tanh", "gelu_new"} else str(name)

    def only(self, config: Config, allowed: Mapping[str, object], where: str) -> None:
        """Refuse settings that change the architecture in a way that is not built here."""
        for name, expected in allowed.items():
            value = config.get(name, expected)
            if value != expected and value is not None:
                msg = (
                    f"{self.folder.path}: {where}.{name} is {value!r}, which is not built here "
                    f"(expected {expected!r}); take the model's Hugging Face layout, or export it "
                    f"to ONNX"
                )
                raise UsageError(msg)


def _part(config: Config, name: str) -> Config:
    """Return a tower's part of a configuration; old CLIP folders have a second one that wins."""
    part, over = config.get(name), config.get(f"{name}_dict")
    return (part if isinstance(part, dict) else {}) | (over if isinstance(over, dict) else {})


def _linear(name: str, **more: bool) -> Linear:
    return Linear(f"{name}.weight", f"{name}.bias", **more)


def _stacked(name: str) -> tuple[Linear, Linear, Linear]:
    """Return query, key and value of torch's MultiheadAttention."""
    weight, bias = f"{name}.in_proj_weight", f"{name}.in_proj_bias"
    return Linear(weight, bias, 0), Linear(weight, bias, 1), Linear(weight, bias, 2)


def _hf_blocks(read: _Reader, prefix: str, config: Config) -> tuple[Block, ...]:
    layer = prefix + ".encoder.layers.{}."
    count = read.layers(layer + "layer_norm1.weight", config, "num_hidden_layers")
    return tuple(
        Block(
            norm1=f"{at}layer_norm1",
            query=_linear(f"{at}self_attn.q_proj"),
            key=_linear(f"{at}self_attn.k_proj"),
            value=_linear(f"{at}self_attn.v_proj"),
            out=_linear(f"{at}self_attn.out_proj"),
            norm2=f"{at}layer_norm2",
            up=_linear(f"{at}mlp.fc1"),
            down=_linear(f"{at}mlp.fc2"),
        )
        for at in map(layer.format, range(count))
    )


def _clip_vision(read: _Reader, config: Config) -> Vision:
    at = "vision_model."
    width, _, patch, _ = read.shape(f"{at}embeddings.patch_embedding.weight", 4)
    dim, _ = read.shape("visual_projection.weight", 2)
    return Vision(
        patches=Linear(f"{at}embeddings.patch_embedding.weight"),
        positions=f"{at}embeddings.position_embedding.weight",
        class_token=f"{at}embeddings.class_embedding",
        registers=None,
        antialias=False,
        pre_norm=f"{at}pre_layrnorm",  # sic
        blocks=_hf_blocks(read, "vision_model", config),
        post_norm=f"{at}post_layernorm",
        head=None,
        projection=Linear("visual_projection.weight"),
        heads=read.heads(width, config.get("num_attention_heads", 12)),
        activation=read.activation(config.get("hidden_act", "quick_gelu")),
        eps=_float(config.get("layer_norm_eps", 1e-5)),
        patch=patch,
        width=width,
        dim=dim,
        resizes=False,
    )


def _clip_text(read: _Reader, config: Config) -> Text:
    at = "text_model."
    vocabulary, width = read.shape(f"{at}embeddings.token_embedding.weight", 2)
    context, _ = read.shape(f"{at}embeddings.position_embedding.weight", 2)
    dim, _ = read.shape("text_projection.weight", 2)
    eos = config.get("eos_token_id", 49407)
    return Text(
        tokens=f"{at}embeddings.token_embedding.weight",
        positions=f"{at}embeddings.position_embedding.weight",
        blocks=_hf_blocks(read, "text_model", config),
        post_norm=f"{at}final_layer_norm",
        projection=Linear("text_projection.weight"),
        heads=read.heads(width, config.get("num_attention_heads", 8)),
        activation=read.activation(config.get("hidden_act", "quick_gelu")),
        eps=_float(config.get("layer_norm_eps", 1e-5)),
        eos=eos if isinstance(eos, int) and eos != 2 else None,  # noqa: PLR2004  # as transformers
        causal=True,
        context=context,
        width=width,
        vocabulary=vocabulary,
        dim=dim,
    )


def _siglip_vision(read: _Reader, config: Config) -> Vision:
    at, head = "vision_model.", "vision_model.head."
    read.only(config, {"vision_use_head": True}, "vision_config")
    width, _, patch, _ = read.shape(f"{at}embeddings.patch_embedding.weight", 4)
    read.shape(f"{head}probe", 3)
    query, key, value = _stacked(f"{head}attention")
    return Vision(
        patches=_linear(f"{at}embeddings.patch_embedding"),
        positions=f"{at}embeddings.position_embedding.weight",
        class_token=None,
        registers=None,
        antialias=False,
        pre_norm=None,
        blocks=_hf_blocks(read, "vision_model", config),
        post_norm=f"{at}post_layernorm",
        head=AttentionPool(
            probe=f"{head}probe",
            query=query,
            key=key,
            value=value,
            out=_linear(f"{head}attention.out_proj"),
            norm=f"{head}layernorm",
            up=_linear(f"{head}mlp.fc1"),
            down=_linear(f"{head}mlp.fc2"),
        ),
        projection=None,
        heads=read.heads(width, config.get("num_attention_heads", 12)),
        activation=read.activation(config.get("hidden_act", "gelu_pytorch_tanh")),
        eps=_float(config.get("layer_norm_eps", 1e-6)),
        patch=patch,
        width=width,
        dim=width,
        resizes=False,
    )


def _siglip_text(read: _Reader, config: Config) -> Text:
    at = "text_model."
    vocabulary, width = read.shape(f"{at}embeddings.token_embedding.weight", 2)
    context, _ = read.shape(f"{at}embeddings.position_embedding.weight", 2)
    dim, _ = read.shape(f"{at}head.weight", 2)
    return Text(
        tokens=f"{at}embeddings.token_embedding.weight",
        positions=f"{at}embeddings.position_embedding.weight",
        blocks=_hf_blocks(read, "text_model", config),
        post_norm=f"{at}final_layer_norm",
        projection=_linear(f"{at}head"),
        heads=read.heads(width, config.get("num_attention_heads", 12)),
        activation=read.activation(config.get("hidden_act", "gelu_pytorch_tanh")),
        eps=_float(config.get("layer_norm_eps", 1e-6)),
        eos=None,
        causal=False,
        context=context,
        width=width,
        vocabulary=vocabulary,
        dim=dim,
    )


def _dinov2(read: _Reader, config: Config, *, registers: bool) -> Vision:
    prefix = "" if "embeddings.cls_token" in read.tensors else "dinov2."
    at = f"{prefix}embeddings."
    layer = prefix + "encoder.layer.{}."
    gated = bool(config.get("use_swiglu_ffn", False))
    up, down = ("mlp.weights_in", "mlp.weights_out") if gated else ("mlp.fc1", "mlp.fc2")
    bias = bool(config.get("qkv_bias", True))

    def projected(name: str) -> Linear:
        return Linear(f"{name}.weight", f"{name}.bias" if bias else None)

    width, _, patch, _ = read.shape(f"{at}patch_embeddings.projection.weight", 4)
    count = read.layers(layer + "norm1.weight", config, "num_hidden_layers")
    return Vision(
        patches=_linear(f"{at}patch_embeddings.projection"),
        positions=f"{at}position_embeddings",
        class_token=f"{at}cls_token",
        registers=f"{at}register_tokens" if registers else None,
        antialias=registers,
        pre_norm=None,
        blocks=tuple(
            Block(
                norm1=f"{here}norm1",
                query=projected(f"{here}attention.attention.query"),
                key=projected(f"{here}attention.attention.key"),
                value=projected(f"{here}attention.attention.value"),
                out=_linear(f"{here}attention.output.dense"),
                norm2=f"{here}norm2",
                up=_linear(f"{here}{up}"),
                down=_linear(f"{here}{down}"),
                scale1=f"{here}layer_scale1.lambda1",
                scale2=f"{here}layer_scale2.lambda1",
                gated=gated,
            )
            for here in map(layer.format, range(count))
        ),
        post_norm=f"{prefix}layernorm",
        head=None,
        projection=None,
        heads=read.heads(width, config.get("num_attention_heads", 12)),
        activation=read.activation(config.get("hidden_act", "gelu")),
        eps=_float(config.get("layer_norm_eps", 1e-6)),
        patch=patch,
        width=width,
        dim=width,
        resizes=True,
    )


_OPEN_CLIP_OFF: Final = (
    "final_ln_after_pool", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner",
    "scale_attn", "scale_fc",
)  # fmt: skip
_OPEN_CLIP_SAME: Final = {
    "ls_init_value": None,
    "act_kwargs": None,
    **dict.fromkeys(_OPEN_CLIP_OFF, False),
}
_OPEN_CLIP_VISION: Final = _OPEN_CLIP_SAME | {
    "timm_model_name": None,
    "attentional_pool": False,
    "no_ln_pre": False,
    "pool_type": "tok",
    "pos_embed_type": "learnable",
}
_OPEN_CLIP_TEXT: Final = _OPEN_CLIP_SAME | {
    "hf_model_name": None,
    "embed_cls": False,
    "no_causal_mask": False,
    "pool_type": "argmax",
    "proj_type": "linear",
    "proj_bias": False,
}


def _open_clip_config(read: _Reader, config: Config) -> Config:
    model = config.get("model_cfg")
    if not isinstance(model, dict):
        msg = (
            f"{read.folder.path}/open_clip_config.json has no model_cfg; expected the hub's layout"
        )
        raise UsageError(msg)
    return model


def _open_clip_blocks(read: _Reader, prefix: str, config: Config) -> tuple[Block, ...]:
    layer = prefix + "transformer.resblocks.{}."
    count = read.layers(layer + "ln_1.weight", config, "layers")
    return tuple(
        Block(
            norm1=f"{at}ln_1",
            query=query,
            key=key,
            value=value,
            out=_linear(f"{at}attn.out_proj"),
            norm2=f"{at}ln_2",
            up=_linear(f"{at}mlp.c_fc"),
            down=_linear(f"{at}mlp.c_proj"),
        )
        for at in map(layer.format, range(count))
        for query, key, value in [_stacked(f"{at}attn")]
    )


def _open_clip_vision(read: _Reader, model: Config) -> Vision:
    config = _part(model, "vision_cfg")
    read.only(config, _OPEN_CLIP_VISION, "vision_cfg")
    width, _, patch, _ = read.shape("visual.conv1.weight", 4)
    _, dim = read.shape("visual.proj", 2)
    head_width = config.get("head_width", 64)
    return Vision(
        patches=Linear("visual.conv1.weight"),
        positions="visual.positional_embedding",
        class_token="visual.class_embedding",  # noqa: S106  # a tensor's name
        registers=None,
        antialias=False,
        pre_norm="visual.ln_pre",
        blocks=_open_clip_blocks(read, "visual.", config),
        post_norm="visual.ln_post",
        head=None,
        projection=Linear("visual.proj", transposed=True),
        heads=read.heads(width, width // head_width if isinstance(head_width, int) else None),
        activation="quick_gelu" if model.get("quick_gelu") else "gelu",
        eps=_eps(config),
        patch=patch,
        width=width,
        dim=dim,
        resizes=False,
    )


def _open_clip_text(read: _Reader, model: Config) -> Text:
    config = _part(model, "text_cfg")
    read.only(config, _OPEN_CLIP_TEXT, "text_cfg")
    prefix = "" if "token_embedding.weight" in read.tensors else "text."
    vocabulary, width = read.shape(f"{prefix}token_embedding.weight", 2)
    context, _ = read.shape(f"{prefix}positional_embedding", 2)
    _, dim = read.shape(f"{prefix}text_projection", 2)
    return Text(
        tokens=f"{prefix}token_embedding.weight",
        positions=f"{prefix}positional_embedding",
        blocks=_open_clip_blocks(read, prefix, config),
        post_norm=f"{prefix}ln_final",
        projection=Linear(f"{prefix}text_projection", transposed=True),
        heads=read.heads(width, config.get("heads", 8)),
        activation="quick_gelu" if model.get("quick_gelu") else "gelu",
        eps=_eps(config),
        eos=None,
        causal=True,
        context=context,
        width=width,
        vocabulary=vocabulary,
        dim=dim,
    )


def _eps(config: Config) -> float:
    given = config.get("norm_kwargs")
    return _float(given.get("eps", 1e-5)) if isinstance(given, dict) else 1e-5


def _float(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
