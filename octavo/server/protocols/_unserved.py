"""What other servers of OpenAI's protocol take beyond it, and we do not: vLLM, SGLang, llama.cpp.
And fields that an endpoint does not have, but another one of OpenAI's or Anthropic's does.

One row a field that would change the answer or what is told of it. What only tunes another field
(`mirostat_tau`) or changes no token (`cache_prompt`) has none: it is carried on like any unknown.
"""

from octavo.server.bodies import Unserved

UNSERVED: dict[str, Unserved] = {
    # What the answer must be.
    "structured_outputs": Unserved(instead="response_format, regex, choice or grammar"),
    "guided_json": Unserved(instead="response_format"),
    "json_schema": Unserved(instead="response_format"),
    "guided_regex": Unserved(instead="regex"),
    "guided_choice": Unserved(instead="choice"),
    "guided_grammar": Unserved(instead="grammar"),
    "ebnf": Unserved(instead="grammar"),
    "grammar_lazy": Unserved((False,)),
    "grammar_triggers": Unserved(([],)),
    "guided_decoding_backend": Unserved(),
    "guided_whitespace_pattern": Unserved(),
    "structural_tag": Unserved(),
    # Fields of OpenAI's other endpoints and of Anthropic's.
    "messages": Unserved(instead="prompt"),
    "prompt": Unserved(instead="messages"),
    "instructions": Unserved(instead="a message of the system"),
    "system": Unserved(instead="a message of the system"),
    "previous_response_id": Unserved(instead="the whole conversation"),
    "max_output_tokens": Unserved(instead="max_tokens"),
    "stop_sequences": Unserved(instead="stop"),
    # How the next token is chosen.
    "repeat_penalty": Unserved((1,), "repetition_penalty"),
    "no_repeat_ngram_size": Unserved((0,)),
    "typical_p": Unserved((1,)),
    "tfs_z": Unserved((1,)),
    "top_n_sigma": Unserved((-1, 0)),
    "dynatemp_range": Unserved((0,)),
    "min_keep": Unserved((0,)),
    "mirostat": Unserved((0,)),
    "dry_multiplier": Unserved((0,)),
    "xtc_probability": Unserved((0,)),
    "bad_words": Unserved(([],)),
    "allowed_token_ids": Unserved(),
    "logits_processors": Unserved(([],)),
    "custom_logit_processor": Unserved(),
    "use_beam_search": Unserved((False,)),
    "length_penalty": Unserved((1,)),
    "early_stopping": Unserved((False,)),
    "best_of": Unserved((1,)),
    "lora": Unserved(([],)),
    "lora_path": Unserved(),
    # Where it ends.
    "n_predict": Unserved((-1,), "max_tokens"),
    "max_new_tokens": Unserved(instead="max_tokens"),
    "min_tokens": Unserved((0,)),
    "stop_regex": Unserved(([],)),
    # What the prompt is.
    "chat_template": Unserved(),
    "add_generation_prompt": Unserved((True,)),
    "continue_final_message": Unserved((False,)),
    "documents": Unserved(([],)),
    "truncate_prompt_tokens": Unserved(),
    "session_params": Unserved(),
    "thinking_budget": Unserved(instead="reasoning.max_tokens"),
    "thinking_token_budget": Unserved(instead="reasoning.max_tokens"),
    "think": Unserved(instead="reasoning_effort"),
    # What is told of it.
    "include_reasoning": Unserved((True,)),
    "separate_reasoning": Unserved((True,)),
    "reasoning_format": Unserved(("auto", "deepseek", "parsed")),
    "include_stop_str_in_output": Unserved((False,)),
    "no_stop_trim": Unserved((False,)),
    "skip_special_tokens": Unserved((True,)),
    "n_probs": Unserved((0,), "logprobs"),
    "return_hidden_states": Unserved((False,)),
    "return_token_ids": Unserved((False,)),
    "return_tokens": Unserved((False,)),
    "return_tokens_as_token_ids": Unserved((False,)),
}
