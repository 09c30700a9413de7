//! Whose a ServiceAccount token is, by the word of the API server.
