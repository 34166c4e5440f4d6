"""The ways to reach customers. Each one implements ports.Channel; SMS, e-mail and push are further files here."""
