-- A service may have further consumers: its own name, a dot, and a word (`notification.webhooks`). As before, nobody
-- touches another service's position or dead letters; no service's name has a dot.

ALTER POLICY a_consumer_moves_its_own_position ON consumer
    USING (current_user = 'payflow_' || split_part(name, '.', 1))
    WITH CHECK (current_user = 'payflow_' || split_part(name, '.', 1));
ALTER POLICY a_consumer_keeps_its_own_dead_letters ON dead_letter
    USING (current_user = 'payflow_' || split_part(consumer, '.', 1))
    WITH CHECK (current_user = 'payflow_' || split_part(consumer, '.', 1));
