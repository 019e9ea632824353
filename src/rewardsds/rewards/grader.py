"""A vision-language model as the reward: it is shown a picture and its prompt, and grades it.

The five aspects and the overall score are those of Ma et al. (arXiv 2501.09732, appendix).
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rewardsds.rewards.base import RewardError

ASPECTS = (
    "accuracy_to_prompt",
    "creativity_and_originality",
    "visual_quality_and_realism",
    "consistency_and_cohesion",
    "emotional_or_thematic_resonance",
)
OVERALL = "overall_score"
INSTRUCTIONS = (
    "You grade pictures that were made from a text. Give each aspect a score from 0 to 10, then an overall score from "
    "0 to 10 that is not simply their mean. Accuracy to the prompt: does the picture show everything that the text "
    "asks for, with the right number, colours and relations, and nothing that contradicts it? Creativity and "
    "originality: is it more than the obvious? Visual quality and realism: light, texture, shape, no artefacts. "
    "Consistency and cohesion: do the parts fit together? Emotional or thematic resonance: does it carry the mood of "
    "the text? A picture may show one object from several sides; grade the object. Be strict and use the whole range."
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "number", "minimum": 0, "maximum": 10} for name in (*ASPECTS, OVERALL)},
    "required": [*ASPECTS, OVERALL],
    "additionalProperties": False,
}
KEY = "OPENAI_API_KEY"


class GraderReward:
    """Overall scores, 0 to 10, of a model behind any OpenAI-compatible endpoint. Has no gradient.

    The views of an item are shown side by side in one picture. The key is read from the environment alone
    (OPENAI_API_KEY) and written nowhere. Answers are kept on disk, so that a picture is never paid for twice.
    """

    def __init__(
        self,
        model: str,
        url: str | None = None,
        *,
        cache: Path | None = None,
        budget: int | None = None,
        retries: int = 4,
        timeout: float = 60.0,
        parallel: int = 8,
        client: Any = None,
    ) -> None:
        """model: its name at the endpoint. url: of the endpoint; None: OPENAI_BASE_URL, else OpenAI's.
        cache: folder of answers. budget: questions that this object may ask, answers from the cache not counted; a run
        that is resumed makes a new one.
        retries: of a question, where the endpoint is busy or fails, with growing waits. timeout: seconds a question.
        parallel: questions at the same time. client: an `openai.OpenAI` of your own.

        Raises RewardError where there is no key.
        """
        self.model = model
        self.url = url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        self.cache = cache
        self.budget = budget
        self.parallel = parallel
        self.asked = 0
        if client is None:
            client = _client(self.url, retries, timeout)
        self._client = client
        self._known: dict[str, float] = {}

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """images (N, B, V, 3, H, W) in [0, 1], B prompts → (N, B). Raises RewardError."""
        pixels = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        sheets = torch.cat(list(pixels.unbind(2)), dim=-1)  # N, B, 3, H, V W
        places = [(n, b) for n in range(len(sheets)) for b in range(len(prompts))]
        pictures = {place: _png(sheets[place].permute(1, 2, 0).numpy()) for place in places}
        keys = {place: self._key(pictures[place], prompts[place[1]]) for place in places}
        wanted = {key: place for place, key in keys.items() if self._from_cache(key) is None}
        if self.budget is not None and self.asked + len(wanted) > self.budget:
            raise RewardError(
                f"the grader {self.model} may be asked {self.budget} times and was asked {self.asked} times; "
                f"{len(wanted)} more questions are needed: raise the budget, or lower candidates or reward_steps"
            )
        with ThreadPoolExecutor(self.parallel) as pool:
            answers = [
                pool.submit(self._answer, key, pictures[place], prompts[place[1]])
                for key, place in wanted.items()
            ]
            wait(answers, return_when=FIRST_EXCEPTION)
            pool.shutdown(cancel_futures=True)  # what has been asked is paid for: it is waited for, and kept
        answers = [answer for answer in answers if not answer.cancelled()]
        self.asked += len(answers)
        for answer in answers:
            answer.result()
        scores = [[self._known[keys[n, b]] for b in range(len(prompts))] for n in range(len(sheets))]
        return torch.tensor(scores, dtype=torch.float32, device=images.device)

    def _answer(self, key: str, picture: bytes, prompt: str) -> None:
        self._keep(key, self._ask(picture, prompt))

    def _ask(self, picture: bytes, prompt: str) -> dict[str, Any]:
        """The scores by name."""
        import openai

        try:
            response = self._client.chat.completions.create(
                model=self.model,
                temperature=0,
                messages=[
                    {"role": "system", "content": INSTRUCTIONS},
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": f"The text: {prompt}"},
                            {
                                "type": "image_url",
                                "image_url": {
                                    "url": f"data:image/png;base64,{base64.b64encode(picture).decode()}"
                                },
                            },
                        ],
                    },
                ],
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "grades", "strict": True, "schema": SCHEMA},
                },
            )
        except openai.AuthenticationError as error:
            raise RewardError(f"the grader's endpoint {self.url} refuses the key in {KEY}") from error
        except openai.NotFoundError as error:
            raise RewardError(f"the grader's endpoint {self.url} knows no model {self.model!r}") from error
        except openai.APITimeoutError as error:
            raise RewardError(f"the grader's endpoint {self.url} did not answer in time") from error
        except openai.APIConnectionError as error:
            raise RewardError(f"the grader's endpoint {self.url} cannot be reached") from error
        except openai.APIStatusError as error:
            again = ", again and again" if _is_retried(error.status_code) else ""
            raise RewardError(
                f"the grader's endpoint {self.url} answered with status {error.status_code}{again}{self._said(error)}"
            ) from error
        except openai.OpenAIError as error:
            raise RewardError(f"the grader {self.model} failed: {type(error).__name__}") from error
        except ValueError as error:
            raise RewardError(
                f"the grader's endpoint {self.url} answered what is no JSON: is it OpenAI-compatible?"
            ) from error
        try:
            said = response.choices[0].message.content
        except (AttributeError, IndexError, TypeError):
            said = None
        return _read(said, self.model)

    def _said(self, error: Any) -> str:
        """The endpoint's own message, shortened, and without the key, which some endpoints quote."""
        said = error.body.get("message") if isinstance(error.body, Mapping) else error.body
        text = " ".join(str(said or "").split())
        for key in filter(None, (self._client.api_key, os.environ.get(KEY))):
            text = text.replace(key, "…")
        return f": {text[:200]}" if text else ""

    def _key(self, picture: bytes, prompt: str) -> str:
        parts = (self.model, self.url, INSTRUCTIONS, prompt)
        return hashlib.sha256("\0".join(parts).encode() + b"\0" + picture).hexdigest()

    def _from_cache(self, key: str) -> float | None:
        if key not in self._known and self.cache is not None and (self.cache / f"{key}.json").is_file():
            try:
                kept = json.loads((self.cache / f"{key}.json").read_text(encoding="utf-8"))
                self._known[key] = float(kept[OVERALL])
            except (ValueError, KeyError, TypeError):  # a file that was cut off: ask again
                return None
        return self._known.get(key)

    def _keep(self, key: str, answer: dict[str, Any]) -> None:
        self._known[key] = float(answer[OVERALL])
        if self.cache is not None:
            self.cache.mkdir(parents=True, exist_ok=True)
            partial = self.cache / f"{key}.partial"
            partial.write_text(json.dumps(answer) + "\n", encoding="utf-8")
            partial.replace(self.cache / f"{key}.json")


def _client(url: str, retries: int, timeout: float) -> Any:
    try:
        import openai
    except ImportError as error:
        raise RewardError("the grader needs the package openai: pip install 'rewardsds[grader]'") from error
    key = os.environ.get(KEY)
    if not key:
        raise RewardError(
            f"the grader needs a key in the environment variable {KEY}; a local endpoint takes any text"
        )
    return openai.OpenAI(api_key=key, base_url=url, max_retries=retries, timeout=timeout)


def _is_retried(status: int) -> bool:
    """What openai's client asks again."""
    return status in (408, 409, 429) or status >= 500


def _read(said: object, model: str) -> dict[str, Any]:
    """The scores in an answer; RewardError where it is none."""
    try:
        answer: Any = json.loads(said) if isinstance(said, str) else None
        scores = {name: float(answer[name]) for name in (*ASPECTS, OVERALL)}
    except (ValueError, KeyError, TypeError):
        shown = " ".join(str(said).split())[:80]
        raise RewardError(
            f"the grader {model} answered no grades: {shown!r}; it must be able to answer in a JSON schema"
        ) from None
    beyond = [name for name, score in scores.items() if not 0 <= score <= 10]
    if beyond:
        raise RewardError(f"the grader {model} gave {beyond[0]} {scores[beyond[0]]}: scores go from 0 to 10")
    return scores


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
