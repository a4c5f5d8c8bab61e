"""The pictures that are stored: colours of flow, the crop around the walker, encodings."""
