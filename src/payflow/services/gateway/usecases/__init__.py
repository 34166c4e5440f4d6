"""What the gateway does, one async function each; every one takes and returns lists."""
