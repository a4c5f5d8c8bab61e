"""From a flow to the flow image that is stored: colours, the crop around the walker, encodings."""
