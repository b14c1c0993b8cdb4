"""What a stack of sentence-transformers is: its modules, how it is called, whether its parts are known exactly."""

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense as DenseModule
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch.nn import Module

ROLES = ("query", "doc")
MODES = {"mean": "mean", "cls": "cls", "last": "lasttoken"}  # our names of its pooling modes


def names(stack) -> str:
    """List the modules of a stack, with the settings of its pooling."""
    return ", ".join(
        f"Pooling({module.pooling_mode})" if type(module) is Pooling else type(module).__name__ for module in stack
    )


def calls(stack: SentenceTransformer) -> dict[str, dict]:
    """Ask encode_query and encode_document for their {role: prompt and task}, instead of imitating them."""
    options: dict[str, dict] = {}
    for role, method in zip(ROLES, (stack.encode_query, stack.encode_document), strict=True):
        stack.encode = lambda role=role, **how: options.update({role: how})  # shadows the method, of this object alone
        try:
            method([""])
        finally:
            del stack.encode
    default = stack.prompts.get(stack.default_prompt_name, "") if stack.default_prompt_name else ""
    named = {role: stack.prompts[how["prompt_name"]] if how["prompt_name"] else default for role, how in options.items()}
    return {role: {"prompt": named[role] or "", "task": how["task"]} for role, how in options.items()}


def is_plain(first: Module, task: str, output: str, name: str) -> bool:
    """Return whether a Transformer module only tokenises texts and calls its model with ids and mask."""
    return (
        type(first) is Transformer
        and first.transformer_task == task
        and first.module_output_name == name
        and list(first.modality_config) == ["text"]
        and first.modality_config["text"]["method"] == "forward"
        and first.modality_config["text"]["method_output_name"] in (output, [output], (output,))
        and first.processor is first.tokenizer
        and first.tokenizer.is_fast
        and not first.processing_kwargs
        and first.query_expansion is None
    )


def takes_ids_alone(first: Transformer) -> bool:
    """Return whether the tokenizer gives nothing for a text but ids and mask."""
    encoded = dict(first.tokenizer("a b"))
    types = encoded.pop("token_type_ids", [])
    return encoded.keys() <= {"input_ids", "attention_mask"} and not any(types)


def is_known(stack: SentenceTransformer) -> bool:
    """Return whether a stack is exactly Transformer, Pooling of one known mode, any Dense, and at the end perhaps Normalize."""
    modules = list(stack)
    dense = modules[2:-1] if type(modules[-1]) is Normalize else modules[2:]
    ends = [module for module in (*dense, modules[-1]) if type(module) in (DenseModule, Normalize)]
    return (
        type(stack) is SentenceTransformer
        and len(modules) > 1
        and is_plain(modules[0], "feature-extraction", "last_hidden_state", "token_embeddings")
        and type(modules[1]) is Pooling
        and modules[1].pooling_mode in MODES.values()
        and all(type(module) is DenseModule and not module.use_residual for module in dense)
        and all(m.module_input_name == m.module_output_name == "sentence_embedding" for m in ends)
        and not any((stack.module_kwargs or {}).values())
    )
