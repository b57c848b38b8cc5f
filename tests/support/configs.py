"""A tiny config of each family, its weights far from zero, so that a mix-up moves the logits."""

from transformers import (
    BertConfig,
    CamembertConfig,
    ConvBertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

VOCABULARY = 120
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_labels": 3,
    # far from zero, so that a mix-up moves the logits
    "initializer_range": 0.3,
}
ROBERTA = {"max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1}
MODERN = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "cls_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
    "local_attention": 16,
    "max_position_embeddings": 1024,
}
PACKED_CONFIGS = {
    "bert": BertConfig(**SHAPE),
    "bert-relu": BertConfig(**SHAPE, hidden_act="relu"),
    "bert-gelu_new": BertConfig(**SHAPE, hidden_act="gelu_new"),
    "roberta": RobertaConfig(**SHAPE, **ROBERTA),
    "xlm-roberta": XLMRobertaConfig(**SHAPE, **ROBERTA),
    "camembert": CamembertConfig(**SHAPE, **ROBERTA),
    "distilbert": DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=48,
        num_labels=3,
        initializer_range=0.3,
    ),
    "electra": ElectraConfig(**SHAPE, embedding_size=16),
    "modernbert": ModernBertConfig(**(SHAPE | {"num_hidden_layers": 4}), **MODERN),
    "modernbert-mean": ModernBertConfig(
        **SHAPE, **MODERN, classifier_pooling="mean", norm_bias=True, attention_bias=True, mlp_bias=True
    ),
}
PADDED_CONFIGS = {
    "mpnet": MPNetConfig(**SHAPE, max_position_embeddings=514, pad_token_id=1),
    "deberta-v2": DebertaV2Config(**SHAPE, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    # sees padding whatever the mask
    "convbert": ConvBertConfig(**SHAPE, embedding_size=32),
    # without a padding token: takes one sequence at a time
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, num_labels=3, initializer_range=0.3
    ),
}
