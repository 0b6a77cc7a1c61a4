"""The model card's section on usage; a test executes the code it prints."""

from __future__ import annotations

from rsearch_cli.policy.resolve import BASE
from rsearch_cli.protocol.prompt import build_messages, build_system_prompt
from rsearch_cli.publishing.facts import Repository
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.terminal import printable
from rsearch_cli.types import Question


def describe_usage(repository: Repository, recipe: Recipe) -> str:
    """Return how to use the agent with rsearch, transformers and PEFT, vLLM and llama.cpp."""
    parts = [_with_rsearch(repository)]
    if repository.adapter:
        parts.append(_with_peft(repository))
    if repository.merged:
        parts.append(_with_transformers(repository))
    if repository.adapter or repository.merged:
        parts += [_first_turn(recipe), _with_vllm(repository)]
    if repository.gguf:
        parts.append(_with_llama_cpp(repository))
    return "\n\n".join(parts)


def fenced(text: str, language: str = "") -> str:
    """Return text as a Markdown code block, whatever backticks it contains."""
    text = printable(text)
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def system_prompt(recipe: Recipe) -> str:
    """Return the run's system prompt; "" if it used no system message."""
    given = recipe.protocol.system_prompt
    if given is not None:
        return given
    return build_system_prompt(recipe.protocol, recipe.rollout.max_turns)


def _with_rsearch(repository: Repository) -> str:
    if not (repository.adapter or repository.merged):
        return (
            "### rsearch\n\nrsearch loads safetensors, which this repository does not contain; "
            "serve the GGUF file with llama.cpp instead (see below)."
        )
    command = f'rsearch infer --model {repository.repo_id} "YOUR QUESTION"'
    return (
        "### rsearch\n\nrsearch executes the search plan, inserts the results and lets the model "
        f"answer; the other methods below do not search.\n\n{fenced(command, 'bash')}"
    )


def _with_peft(repository: Repository) -> str:
    repo, base = repository.repo_id, repository.base.hub_id
    folder = f', subfolder="{path}"' if (path := repository.adapter_folder) else ""
    weights = f'"{repo}", subfolder="{BASE}"' if repository.bundles_base else f'"{base}"'
    code = (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
        f"model = PeftModel.from_pretrained("
        f'AutoModelForCausalLM.from_pretrained({weights}), "{repo}"{folder})'
    )
    return f"### transformers and PEFT\n\n{fenced(code, 'python')}"


def _with_transformers(repository: Repository) -> str:
    repo = repository.repo_id
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
        f'model = AutoModelForCausalLM.from_pretrained("{repo}")'
    )
    return f"### transformers with the merged weights\n\n{fenced(code, 'python')}"


def _first_turn(recipe: Recipe) -> str:
    prompt, rules = system_prompt(recipe), recipe.protocol
    system = '{"role": "system", "content": SYSTEM_PROMPT}, ' if prompt else ""
    chat = f'[{system}{{"role": "user", "content": "YOUR QUESTION"}}]'
    if rules.example_turns:
        asked = build_messages(Question("", "YOUR QUESTION", ()), rules, recipe.rollout.max_turns)
        chat = dump_json(asked, indent=1)
    thought = ""
    if recipe.rollout.open_thought:
        thought = 'text += "" if text.rstrip().endswith("<think>") else "<think>"\n'
    code = (
        f"messages = {chat}\n"
        "text = tokenizer.apply_chat_template("
        f"messages, tokenize=False, add_generation_prompt=True)\n{thought}"
        'inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)\n'
        "output = model.generate(**inputs, do_sample=False, "
        f'max_new_tokens={recipe.rollout.max_new_tokens}, stop_strings=["</search>"], '
        "tokenizer=tokenizer)\n"
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:]))'
    )
    tag = recipe.protocol.result_tag
    where = "`SYSTEM_PROMPT` is below" if prompt else "there is no system prompt"
    return (
        f"Then generate up to the search plan ({where}):\n\n{fenced(code, 'python')}\n\nThis "
        "code does not search. To get an answer, execute the plan after `</search>`, append "
        f"`<{tag}> … </{tag}>` with the results, and generate again until `</answer>`."
    )


def _with_vllm(repository: Repository) -> str:
    repo, name = repository.repo_id, repository.name
    adapter = f"{name}/{repository.adapter_folder}".rstrip("/")
    options = f"--enable-lora --max-lora-rank {_vllm_rank(repository.rank)} --lora-modules "
    if repository.merged:
        command = f"vllm serve {repo}"
    elif repository.bundles_base:
        command = (
            f"hf download {repo} --local-dir {name}\n"
            f"vllm serve {name}/{BASE} --tokenizer {name} {options}{name}={adapter}"
        )
    else:
        command = f"vllm serve {repository.base.hub_id} {options}{name}={repo}"
    return (
        f"### vLLM\n\n{fenced(command, 'bash')}\n\nBased on vLLM's documentation; not tested with "
        "this repository."
    )


def _with_llama_cpp(repository: Repository) -> str:
    command = f"llama-server -hf {repository.repo_id} --hf-file {repository.gguf}"
    return (
        f"### llama.cpp\n\n{fenced(command, 'bash')}\n\nBased on llama.cpp's documentation; not "
        "tested with this repository."
    )


def _vllm_rank(rank: int) -> int:
    """Return the smallest rank that vLLM accepts and that is at least the adapter's."""
    return next((r for r in (8, 16, 32, 64, 128, 256, 320, 512) if r >= rank), rank)
