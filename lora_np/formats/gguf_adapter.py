"""Read a LoRA adapter from a GGUF file, as llama.cpp reads it."""

from ..checked import errors_of, quoted
from .adapter_report import NO_ALPHA, ROW_ORDER, llama_cpp_report
from .checkpoint import cast
from .gguf import read_gguf
from .model import FINGERPRINT, fingerprint
from .peft import adapter_of, arrays_of
from .peft_config import alpha_of


def load_gguf_adapter(path, params, config):
    """Read an adapter from a GGUF file.

    Parameters
    ----------
    path : the file
    params, config : the base's weights and configuration

    Returns
    -------
    Adapter, in the base's dtype

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing or damaged, llama.cpp would refuse it or ignore a tensor, it adapts layers that this
        package cannot adapt, or it names another base (only files of this package name one).
    """
    fields, tensors = read_gguf(path)
    report = llama_cpp_report(fields, tensors, params, config)
    if report.refused:
        raise ValueError(f"{path}: {report.refused[0]}")
    sha256 = fields.get(f"lora_np.{FINGERPRINT}")
    if sha256 is not None and sha256 != fingerprint(params):
        raise ValueError(f"{path}: trained on another base; its {FINGERPRINT} is {quoted(sha256)}")
    harmless = ROW_ORDER, *(note for layer in report.layers for note in layer.notes if note.startswith(NO_ALPHA))
    adapted, scales, _ = arrays_of(path, report, params, harmless)
    adapted = {name: cast(path, own, params["tok_emb.weight"].dtype) for name, own in adapted.items()}
    with errors_of(path):
        return adapter_of(
            params, adapted, {n: alpha_of(s, len(adapted[n]["lora_A"]), False) for n, s in scales.items()}
        )
