"""T5's tokenizer against the tokenizers library, on cleaned joint names and a vocabulary that SentencePiece trained here."""

import base64
import io
import json
import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from anyrig.backend.encoders.t5_tokenizer import SPACES, Tokenizer
from anyrig.backend.errors import UserError
from anyrig.backend.rig.joint_names import clean_name
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer as Theirs

PARTS = (
    "Hips Spine Chest Neck Head Jaw Eye Ear Tail Thigh UpLeg Leg Calf Shin Knee Foot Toe Ball Shoulder Clavicle Arm UpperArm ForeArm "
    "Elbow Hand Wrist Finger Thumb Index Middle Ring Pinky Wing Feather Fin Hoof Paw Claw Horn Antler Tongue Beak Twist Root Pelvis"
).split()
STYLES = (
    "mixamorig:{Side}{part}", "{part}.{s}", "{part}_{s}", "{s}_{part}_{n:02}", "Bip01 {S} {part}{n}", "BN_{Side}_{part}_{n}", "jt_{part}_{S}",
    "DEF-{part}.{s}.{n:03}", "NPC {S} {part} [{S}{part}]", "ValveBiped.Bip01_{S}_{part}", "{part}{n}{Side}", "CC_Base_{S}_{part}",
    "J_Bip_{S}_{part}", "{part}", "{part} {n}", "Armature|{part}{n}", "{side}-{part}-{n}", "{Side} {part} tip",
)  # fmt: skip


def joint_names(count: int) -> list[str]:
    rng = random.Random(0)
    names = []
    for _ in range(count):
        side = rng.choice(("left", "right"))
        values = {"side": side, "Side": side.title(), "s": side[0], "S": side[0].upper(), "n": rng.randrange(12)}
        part = rng.choice(PARTS)
        part = rng.choice((part, part.lower(), part.upper()))
        names.append(rng.choice(STYLES).format(part=part, **values))
    return names


RANGES = ((32, 126), (0, 31), (160, 0x2FF), (0x300, 0x36F), (0x370, 0x6FF), (0x900, 0x97F), (0x1E00, 0x1FFF), (0x2000, 0x2BFF))
RANGES += (
    (0x3000, 0x30FF),
    (0x4E00, 0x4EFF),
    (0xAC00, 0xACFF),
    (0xFB00, 0xFFEF),
    (0x1F300, 0x1F5FF),
    (0x1D400, 0x1D4FF),
    (0x1100, 0x11FF),
)


def random_strings(count: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        pool = [RANGES[0], rng.choice(RANGES), rng.choice(RANGES)]
        made.append("".join(chr(rng.randint(*rng.choice(pool))) for _ in range(rng.randint(0, 24))))
    return made


@pytest.fixture(scope="module")
def trained() -> sentencepiece_model_pb2.ModelProto:
    """A unigram model of joint names, with the character map that T5's tokenizer has (nmt_nfkc)."""
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([clean_name(name) for name in joint_names(3000)] + joint_names(3000)), model_writer=buffer,
        vocab_size=220, model_type="unigram", normalization_rule_name="nmt_nfkc", hard_vocab_limit=False, minloglevel=2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    )  # fmt: skip
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(buffer.getvalue())
    return model


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
    "pair": [],
    "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
}
# t5-base's own, what newer versions of transformers save, and what its converter writes
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
PRE_TOKENIZERS: dict[str, Any] = {
    "t5": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}]},
    "saved": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]},
    "converted": METASPACE,
}  # fmt: skip


def written(model: Any, pre_tokenizer: str = "t5", more: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """A tokenizer.json as t5-base has it."""
    charsmap = base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()
    vocabulary = [[piece.piece, piece.score] for piece in model.pieces]
    vocabulary += [[f"<extra_id_{n}>", 0.0] for n in range(9, -1, -1)]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    names = ["<pad>", "</s>", "<unk>", *(f"<extra_id_{n}>" for n in range(10))]
    places = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    precompiled = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": places[name], "content": name, **special} for name in names],
        "normalizer": {"type": "Sequence", "normalizers": [precompiled, *more]} if more else precompiled,
        "pre_tokenizer": PRE_TOKENIZERS[pre_tokenizer], "post_processor": TEMPLATE, "decoder": None,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocabulary, "byte_fallback": False},
    }  # fmt: skip


@pytest.mark.parametrize("pre_tokenizer", PRE_TOKENIZERS)
def test_cleaned_names_are_split_as_by_tokenizers(trained: Any, pre_tokenizer: str) -> None:
    settings = written(trained, pre_tokenizer, [SPACES] if pre_tokenizer == "converted" else [])
    ours, theirs = Tokenizer(settings), Theirs.from_str(json.dumps(settings))
    names = [*joint_names(2000), *random_strings(1500), "", "İskelet", "头 head", "日本 head"]
    assert sum(2 in ours.encode(clean_name(name)) for name in names) > 500  # of the unknown ones there are many, too
    for text in map(clean_name, names):
        assert ours.encode(text) == theirs.encode(text).ids, repr(text)


def test_the_character_map_changes_no_cleaned_name(trained: Any) -> None:
    """So it need not be read."""
    theirs = Theirs.from_str(json.dumps(written(trained))).normalizer
    every = [chr(code) for code in range(1, 0x30000) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(every), 4096):
        for join in (" ", "a"):
            text = unicodedata.normalize("NFKC", clean_name(join.join(every[start : start + 4096])))
            assert theirs.normalize_str(text) == text


def test_errors(trained: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.json"):
        Tokenizer.load(tmp_path / "no.json")
    bad = tmp_path / "tokenizer.json"
    for text in ("<html>", "[]", "{}", '{"model": {"type": "Unigram"}}', '{"model": null}'):
        bad.write_text(text)
        with pytest.raises(UserError, match=r"tokenizer\.json"):
            Tokenizer.load(bad)
    settings = written(trained)
    numbered = {**settings["model"], "vocab": [[5, 0.0], *settings["model"]["vocab"]]}
    for model in (numbered, {**settings["model"], "unk_id": None}):
        bad.write_text(json.dumps({**settings, "model": model}))
        with pytest.raises(UserError, match="is not a tokenizer.json of a unigram tokenizer"):
            Tokenizer.load(bad)
    for key, kind in (("model", "BPE"), ("normalizer", "Nmt"), ("pre_tokenizer", "ByteLevel"), ("post_processor", "Bert")):
        with pytest.raises(UserError, match=rf"tokenizer's {key} is not T5's \({kind}\)"):
            Tokenizer({**settings, key: {"type": kind}})


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}),
        ("normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}),
        ("pre_tokenizer", None),
        ("pre_tokenizer", {**METASPACE, "prepend_scheme": "never"}),
        ("pre_tokenizer", {**METASPACE, "split": False}),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [METASPACE, {"type": "Digits"}]}),
        ("post_processor", None),
        ("post_processor", {**TEMPLATE, "single": TEMPLATE["single"][:1]}),
    ],
)
def test_other_pipelines_are_refused(trained: Any, part: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"The tokenizer's {part} is not T5's .*get tokenizer\.json of t5-base"):
        Tokenizer({**written(trained), part: value})


def test_a_model_that_falls_back_to_bytes_is_refused(trained: Any) -> None:
    settings = written(trained)
    with pytest.raises(UserError, match=r"model is not T5's \(Unigram with bytes\)"):
        Tokenizer({**settings, "model": {**settings["model"], "byte_fallback": True}})
