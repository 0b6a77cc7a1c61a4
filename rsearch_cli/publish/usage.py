"""The part of a card that says how to use the agent, as code that runs as it stands.

Place in the path: a part of the card; a test executes what it prints. On failure: nothing here
fails.
"""

from __future__ import annotations

from rsearch_cli.policy.resolve import BASE
from rsearch_cli.protocol.prompt import build_messages, build_system_prompt
from rsearch_cli.publish.base import Base
from rsearch_cli.publish.contents import Contents
from rsearch_cli.recipe.schema import Recipe
from rsearch_cli.runs.json_text import dump_json
from rsearch_cli.terminal import printable
from rsearch_cli.types import Question


def describe_usage(contents: Contents, base: Base, recipe: Recipe) -> str:
    """Markdown on how to use the agent with rsearch, transformers and PEFT, vLLM and llama.cpp."""
    parts = [_with_rsearch(contents)]
    if contents.adapter:
        parts.append(_with_peft(contents, base))
    if contents.merged:
        parts.append(_with_transformers(contents))
    if contents.adapter or contents.merged:
        parts += [_one_turn(recipe), _with_vllm(contents, base)]
    if contents.gguf:
        parts.append(_with_llama_cpp(contents))
    return "\n\n".join(parts)


def fenced(text: str, language: str = "") -> str:
    """Text as a Markdown code block, whatever backticks it holds itself."""
    text = printable(text)
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def system_prompt(recipe: Recipe) -> str:
    """The system prompt of the run; "" if it had no system message."""
    given = recipe.protocol.system_prompt
    if given is not None:
        return given
    return build_system_prompt(recipe.protocol, recipe.rollout.max_turns)


def _with_rsearch(contents: Contents) -> str:
    if not (contents.adapter or contents.merged):
        return (
            "### With rsearch\n\nrsearch loads safetensors, which this repository does not hold; "
            "serve the GGUF file with llama.cpp (below)."
        )
    command = f'rsearch infer --model {contents.repo_id} "YOUR QUESTION"'
    return (
        "### With rsearch\n\nThe only one of these ways that also searches: rsearch carries the "
        f"plan out, inserts the results and lets the model answer.\n\n{fenced(command, 'bash')}"
    )


def _with_peft(contents: Contents, base: Base) -> str:
    repo, beside = contents.repo_id, contents.adapter_folder
    folder = f', subfolder="{beside}"' if beside else ""
    weights = f'"{repo}", subfolder="{BASE}"' if base.goes_along else f'"{base.public}"'
    code = (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
        f"model = PeftModel.from_pretrained("
        f'AutoModelForCausalLM.from_pretrained({weights}), "{repo}"{folder})'
    )
    return f"### With transformers and PEFT\n\n{fenced(code, 'python')}"


def _with_transformers(contents: Contents) -> str:
    repo = contents.repo_id
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n'
        f'model = AutoModelForCausalLM.from_pretrained("{repo}")'
    )
    return f"### With transformers, merged weights\n\n{fenced(code, 'python')}"


def _one_turn(recipe: Recipe) -> str:
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
    after = recipe.protocol.result_tag
    where = "`SYSTEM_PROMPT` is below" if prompt else "there is no system prompt"
    return (
        f"Then, up to the search plan ({where}):\n\n{fenced(code, 'python')}\n\nNothing is "
        "searched here: stop at `</search>`, carry the plan out, append "
        f"`<{after}> … </{after}>` and let the model go on to `<answer>`."
    )


def _with_vllm(contents: Contents, base: Base) -> str:
    repo, name = contents.repo_id, contents.repo_id.rpartition("/")[2]
    adapter = f"{name}/{contents.adapter_folder}".rstrip("/")
    options = f"--enable-lora --max-lora-rank {_vllm_rank(contents.rank)} --lora-modules "
    if contents.merged:
        command = f"vllm serve {repo}"
    elif base.goes_along:
        command = (
            f"hf download {repo} --local-dir {name}\n"
            f"vllm serve {name}/{BASE} --tokenizer {name} {options}{name}={adapter}"
        )
    else:
        command = f"vllm serve {base.public} {options}{name}={repo}"
    return (
        f"### With vLLM\n\n{fenced(command, 'bash')}\n\nAfter vLLM's documentation; not run when "
        "this card was made."
    )


def _with_llama_cpp(contents: Contents) -> str:
    command = f"llama-server -hf {contents.repo_id} --hf-file {contents.gguf}"
    return (
        f"### With llama.cpp\n\n{fenced(command, 'bash')}\n\nAfter llama.cpp's documentation; not "
        "run when this card was made."
    )


def _vllm_rank(rank: int) -> int:
    """The smallest of vLLM's allowed ranks that holds the adapter's."""
    return next((r for r in (8, 16, 32, 64, 128, 256, 320, 512) if r >= rank), rank)
