"""Your own small model on a CPU: which team a support ticket is for. NumPy and one line of ours.

Words weighted by how rare they are, and a softmax regression that a replica trains in some
milliseconds when it starts: a toy of twenty sentences. Put your model in place of `Triage`.

    serve run examples.own_model:app                      by Ray alone
    wattshift submit examples/own-model.yaml              within a site's watts
    wattshift load http://127.0.0.1:8000/triage --body '{"text": "{text}"}' --slo-p95 300ms
"""

import re
from typing import Any

import numpy as np

from wattshift_cluster.gate.hooks.serve import busy_replica

TICKETS = {
    "billing": "I was charged twice this month|the invoice shows a wrong amount|refund my payment"
    "|my credit card was declined|change the billing address|the price on the receipt is wrong",
    "outage": "the site is down since this morning|every request times out|the api answers with"
    " error 500|nothing loads any more|the dashboard is very slow today|jobs hang and never finish",
    "account": "I forgot my password|please reset two factor login|my account is locked|add a new"
    " user to our team|I can not log in|change the email of my account|delete my user and my data",
}
TEXT_CHARS_MAX = 10_000


@busy_replica  # the one line: mining yields while a replica loads and while it answers
class Triage:
    """One replica: trained in the constructor, asked with `{"text": "…"}`."""

    def __init__(self) -> None:
        rows = [(team, text) for team, texts in TICKETS.items() for text in texts.split("|")]
        bags = [set(words(text)) for _, text in rows]
        self.at = {word: n for n, word in enumerate(sorted(set.union(*bags)))}
        seen = np.array([sum(word in bag for bag in bags) for word in self.at])
        self.rarity = np.log((1 + len(bags)) / (1 + seen)) + 1
        x = np.stack([self.vector(text) for _, text in rows])
        y = np.array([[team == own for own in TICKETS] for team, _ in rows], dtype=float)
        self.w = np.zeros((x.shape[1], y.shape[1]))
        for _ in range(300):
            self.w -= 2.0 * (x.T @ (softmax(x @ self.w) - y) / len(x) + 0.001 * self.w)

    def vector(self, text: str) -> np.ndarray:
        """A text as weighted words, of unit length; zero if it knows none of them."""
        counts = np.zeros(len(self.at))
        for n in (self.at[word] for word in words(text) if word in self.at):
            counts[n] += self.rarity[n]
        return counts / max(float(np.linalg.norm(counts)), 1e-12)

    def label(self, text: str) -> dict[str, Any]:
        """The team and how sure the model is; an even guess for a text of unknown words."""
        shares = softmax(self.vector(text) @ self.w)
        return {"team": list(TICKETS)[int(shares.argmax())], "share": round(float(shares.max()), 3)}

    async def __call__(self, request: Any) -> Any:
        """Answer an HTTP request."""
        from starlette.responses import JSONResponse

        try:
            return self.label((await request.json())["text"][:TEXT_CHARS_MAX])
        except (ValueError, TypeError, KeyError, AttributeError):
            return JSONResponse({"error": 'allowed: {"text": "…"}'}, 400)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def softmax(x: np.ndarray) -> np.ndarray:
    grown = np.exp(x - x.max(axis=-1, keepdims=True))
    return grown / grown.sum(axis=-1, keepdims=True)


def app(args: dict[str, str]) -> Any:
    """The application, bound. Ray is imported here, so that the class can be tried without it."""
    from ray import serve

    return serve.deployment(Triage, max_ongoing_requests=64).bind()
