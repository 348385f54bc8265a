//! What a cluster is told of a node, for each way a node can stand.
