"""Make tiny random models with their authors' own classes, and what these compute.

Run by hand, in an environment of its own, from the folder of this file::

    pip install torch==2.13.0 transformers==5.23.0 open_clip_torch==3.3.0 sentencepiece==0.2.3 \
        safetensors tokenizers pillow numpy
    python make_clip.py

It writes ``models/<name>/`` (a folder as the hub has it) and ``models/<name>.npz``: for what is in
``inputs.py``, the pixels after the processor, the token ids, and both
embeddings. The tests compare ours with them, without any of these packages.
"""

# ruff: noqa: T201

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import open_clip
import sentencepiece
import torch
from inputs import TEXTS, golden_images
from open_clip.tokenizer import get_clean_fn
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipTokenizer,
)

HERE = Path(__file__).parent / "models"
WORDS = "a photo of the dog cat cats on beach red car two it many spaces and lines".split()  # noqa: SIM905


def shake(model: torch.nn.Module, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """Give every parameter values that matter (a fresh model is almost linear), exact in dtype."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if "norm" in name.lower() or "ln_" in name or "lambda" in name:
                value.copy_((0.0 if name.endswith("bias") else 1.0) + 0.2 * noise)
            elif value.dim() >= 2:
                value.copy_(noise * 1.5 / value.shape[-1] ** 0.5)
            elif value.dim() == 1:
                value.copy_(0.1 * noise)
            value.copy_(value.to(dtype).float())
    return model.eval()


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = letters + [f"{letter}</w>" for letter in letters]
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            pieces = ["".join(pair), *pieces[2:]]
            if pair not in merges:
                merges.append(pair)
    tokens += ["".join(pair) for pair in merges if "".join(pair) not in tokens]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}, merges


def features(found: object) -> np.ndarray:
    found = getattr(found, "pooler_output", found)
    return found.detach().numpy().astype(np.float32)


def pixels_of(processor: object) -> np.ndarray:
    plain = processor(
        [Image.fromarray(image) for image in golden_images()],
        do_normalize=False, do_rescale=False, return_tensors="np",
    )  # fmt: skip
    return plain["pixel_values"].transpose(0, 2, 3, 1).astype(np.uint8)


def normalised(processor: object) -> torch.Tensor:
    images = [Image.fromarray(image) for image in golden_images()]
    return processor(images, return_tensors="pt")["pixel_values"]


def save(name: str, folder: Path, **arrays: np.ndarray) -> None:
    for extra in ("vocab.json", "merges.txt"):
        (folder / extra).unlink(missing_ok=True)
    np.savez_compressed(HERE / f"{name}.npz", **arrays)
    size = sum(each.stat().st_size for each in folder.iterdir())
    print(f"{name}: {size / 1000:.0f} kB, {(HERE / f'{name}.npz').stat().st_size / 1000:.0f} kB")


def fresh(name: str) -> Path:
    shutil.rmtree(HERE / name, ignore_errors=True)
    (HERE / name).mkdir(parents=True)
    return HERE / name


def make_clip() -> CLIPTokenizer:
    folder = fresh("clip")
    vocab, merges = clip_vocabulary()
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=24)
    config = CLIPConfig(
        projection_dim=24,
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
        },
        text_config={
            "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 3, "vocab_size": len(vocab), "max_position_embeddings": 24,
            "bos_token_id": vocab["<|startoftext|>"], "eos_token_id": vocab["<|endoftext|>"],
        },
    )  # fmt: skip
    model = shake(CLIPModel(config))
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ids = tokenizer(
        TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    )
    with torch.no_grad():
        images = features(model.get_image_features(normalised(processor)))
        texts = features(model.get_text_features(**ids))
        # An end token that is not the largest id, as in vocabularies with added tokens.
        model.text_model.eos_token_id = vocab["a</w>"]
        texts_to_a = features(model.get_text_features(**ids))
    save(
        "clip", folder, pixels=pixels_of(processor), images=images, texts=texts,
        texts_to_a=texts_to_a, a=np.array(vocab["a</w>"]), ids=ids["input_ids"].numpy(),
    )  # fmt: skip
    return tokenizer


def make_open_clip(tokenizer: CLIPTokenizer) -> None:
    folder = fresh("open_clip")
    settings = {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 24, "vocab_size": len(tokenizer), "width": 24, "heads": 3,
            "layers": 2,
        },
    }  # fmt: skip
    model = shake(open_clip.CLIP(**settings), torch.float16)
    preprocess = {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": settings, "preprocess_cfg": preprocess}, indent=1)
    )
    # A state_dict also names buffers such as attn_mask; the hub's files have parameters only.
    save_file(
        {name: value.detach().half().contiguous() for name, value in model.named_parameters()},
        folder / "open_clip_model.safetensors",
    )
    tokenizer.save_pretrained(folder)
    transform = image_transform_v2(PreprocessCfg(size=32, **preprocess), is_train=False)
    clean = get_clean_fn("lower")
    ids = tokenizer(
        [clean(text) for text in TEXTS],
        padding="max_length", truncation=True, max_length=24, return_tensors="pt",
    )["input_ids"]  # fmt: skip
    inputs = torch.stack([transform(Image.fromarray(image)) for image in golden_images()])
    mean, std = (np.array(preprocess[name])[:, None, None] for name in ("mean", "std"))
    plain = np.rint((inputs.numpy() * std + mean) * 255).astype(np.uint8)
    with torch.no_grad():
        images, texts = features(model.encode_image(inputs)), features(model.encode_text(ids))
    save(
        "open_clip", folder, pixels=plain.transpose(0, 2, 3, 1), images=images, texts=texts,
        ids=ids.numpy(),
    )  # fmt: skip


def make_siglip() -> None:
    folder = fresh("siglip")
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus.txt"
        corpus.write_text("\n".join([" ".join(WORDS), "a photo of a dog on the beach"] * 40))
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=f"{scratch}/spiece", vocab_size=64,
            model_type="unigram", pad_id=-1, bos_id=-1, eos_id=1, unk_id=2,
            user_defined_symbols=["<pad>"], character_coverage=1.0, hard_vocab_limit=False,
            minloglevel=2,
        )  # fmt: skip
        tokenizer = SiglipTokenizer(f"{scratch}/spiece.model", model_max_length=16)
        spiece = sentencepiece.SentencePieceProcessor(model_file=f"{scratch}/spiece.model")
        pieces = [
            (spiece.id_to_piece(number), spiece.get_score(number)) for number in range(len(spiece))
        ]
        # The same unigram model as the hub's tokenizer.json files hold it.
        fast = Tokenizer(models.Unigram(pieces, unk_id=2))
        fast.normalizer = normalizers.Sequence(
            [normalizers.Lowercase(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
        )
        fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        fast.decoder = decoders.Metaspace()
        fast.add_special_tokens(["</s>"])
        fast.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "SiglipTokenizer", "eos_token": "</s>", "pad_token": "</s>"})
    )
    config = SiglipConfig(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
        },
        text_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "vocab_size": len(pieces), "max_position_embeddings": 16,
        },
    )  # fmt: skip
    model = shake(SiglipModel(config), torch.bfloat16)
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    ids = tokenizer(
        TEXTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        images = features(model.get_image_features(normalised(processor)))
        texts = features(model.get_text_features(input_ids=ids))
    model.to(torch.bfloat16).save_pretrained(folder)
    save("siglip", folder, pixels=pixels_of(processor), images=images, texts=texts, ids=ids.numpy())


def make_siglip2_tokenizer() -> None:
    """SigLIP 2 differs from SigLIP in its tokenizer only: Gemma's, in lower case."""
    folder = fresh("siglip2_tokenizer")
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens += [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    tokens += ["\u2581", "ca", "cat", "\u2581a", "\u2581cat"]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    merges = [("c", "a"), ("ca", "t"), ("\u2581", "a"), ("\u2581", "cat")]
    tokenizer = Siglip2Tokenizer(
        vocab={token: number for number, token in enumerate(dict.fromkeys(tokens))},
        merges=merges, padding_side="right", add_eos_token=True, add_bos_token=False,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=16)["input_ids"]
    save("siglip2_tokenizer", folder, ids=np.array(ids))


def make_dinov2(name: str, config_class: type, model_class: type, **more: object) -> None:
    folder = fresh(name)
    config = config_class(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=70,
        patch_size=14, layerscale_value=1.0, **more,
    )  # fmt: skip
    model = shake(model_class(config))
    processor = BitImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 42, "width": 42},
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    with torch.no_grad():
        images = features(model(pixel_values=normalised(processor)))
    save(name, folder, pixels=pixels_of(processor), images=images)


if __name__ == "__main__":
    torch.set_num_threads(1)
    clip_tokenizer = make_clip()
    make_open_clip(clip_tokenizer)
    make_siglip()
    make_siglip2_tokenizer()
    make_dinov2("dinov2", Dinov2Config, Dinov2Model)
    make_dinov2(
        "dinov2_with_registers", Dinov2WithRegistersConfig, Dinov2WithRegistersModel,
        num_register_tokens=3, use_swiglu_ffn=True,
    )  # fmt: skip
