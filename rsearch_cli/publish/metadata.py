"""The card's metadata: what the Hub indexes, filters by and draws its tables from.

Place in the path: the head of the card. On failure: metadata that huggingface_hub's own card
classes cannot read back are a `PublishError`, before anything is uploaded.
"""

from __future__ import annotations

from rsearch_cli.errors import PublishError
from rsearch_cli.publish.contents import Findings
from rsearch_cli.publish.figures import eval_results
from rsearch_cli.publish.record import RunRecord


def write_metadata(record: RunRecord, findings: Findings) -> str:
    """YAML of the card's head, without its fences."""
    from huggingface_hub import ModelCardData

    contents, base = findings.contents, findings.base
    library = "transformers" if contents.merged else "peft" if contents.adapter else "gguf"
    method = ["sft"] if record.supervised else ["grpo", "reinforcement-learning"]
    tags = ["rsearch", "search-agent", *method, "arxiv:2506.08352"]
    relation = {"transformers": "finetune", "peft": "adapter", "gguf": "quantized"}[library]
    results = eval_results(record)
    data = ModelCardData(
        **findings.licence,
        base_model=base.public,
        base_model_relation=relation if base.public else None,
        library_name=library,
        pipeline_tag="text-generation",
        tags=[*tags, "lora"] if contents.adapter else tags,
        datasets=[record.data.hub_id] if record.data.hub_id else None,
        model_name=contents.repo_id.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def check_metadata(card: str, record: RunRecord) -> None:
    """Read the metadata of a card back with the Hub client's own classes.

    Raises:
        PublishError: They cannot be read, or figures were lost.
    """
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(card).data
    except (ValueError, KeyError, TypeError) as error:
        raise PublishError(f"the card's metadata cannot be read back: {error}") from error
    if len(data.eval_results or ()) != len(eval_results(record)):
        raise PublishError("the card's model-index lost figures when it was read back")
