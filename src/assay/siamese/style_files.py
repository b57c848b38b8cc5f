"""The style features of a model as JSON: their names in order, and their spread over the training texts."""

from assay.model.checkpoint import JsonObject, is_number
from assay.siamese.style import StyleScale


def style_content(style: StyleScale) -> JsonObject:
    """What `read_style` reads."""
    columns = zip(style.names, style.means, style.deviations, strict=True)
    return {
        "language": style.language,
        "features": [
            {"name": name, "mean": mean, "deviation": deviation} for name, mean, deviation in columns
        ],
    }


def read_style(content: object) -> StyleScale | None:
    """The style features in what a file holds, or None for something else."""
    features = content.get("features") if isinstance(content, dict) else None
    language = content.get("language") if isinstance(content, dict) else None
    if not isinstance(features, list) or not isinstance(language, str):
        return None
    columns: list[tuple[str, float, float]] = []
    for feature in features:
        found = feature if isinstance(feature, dict) else {}
        name, mean, deviation = (found.get(key) for key in ("name", "mean", "deviation"))
        if not isinstance(name, str) or not is_number(mean) or not is_number(deviation):
            return None
        columns.append((name, mean, deviation))
    return StyleScale(
        language=language,
        names=tuple(name for name, _, _ in columns),
        means=tuple(mean for _, mean, _ in columns),
        deviations=tuple(deviation for _, _, deviation in columns),
    )
