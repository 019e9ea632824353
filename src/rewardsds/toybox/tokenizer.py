"""The toybox tokenizer: one token a word of the caption grammar, in the Hugging Face format."""

from __future__ import annotations

from collections.abc import Collection

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from rewardsds.toybox.captions import LONGEST_CAPTION, WORDS
from rewardsds.toybox.lexicon import words_of
from rewardsds.toybox.specification import KINDS

# The order is the ids. <eos> must not be 2: CLIPTextModel takes eos_token_id 2 to mean "the highest id".
SPECIAL_TOKENS = ("<pad>", "<bos>", "<unk>", "<eos>")
MAX_LENGTH = LONGEST_CAPTION + 2


def build_tokenizer(kinds: Collection[str] = KINDS) -> PreTrainedTokenizerFast:
    """Lower-cases, strips accents, drops punctuation, and gives "<bos> words <eos>" of at most 24 ids.

    kinds: the kinds of toy that have words; those of others become <unk>. All other ids stay what they are.

    `save_pretrained` writes it; `AutoTokenizer.from_pretrained` reads it back. Words outside the grammar
    become <unk>; `captions.parse` names them.
    """
    missing = set().union(*(words_of(kind) for kind in KINDS if kind not in kinds))
    vocabulary = {
        token: index for index, token in enumerate((*SPECIAL_TOKENS, *WORDS)) if token not in missing
    }
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"['’]s\b"), ""),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\W_]+"), behavior="removed")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>",
        special_tokens=[("<bos>", vocabulary["<bos>"]), ("<eos>", vocabulary["<eos>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_LENGTH,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="right",
        truncation_side="right",
    )
