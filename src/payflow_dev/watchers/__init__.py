"""What watches an instance on this machine: `payflow dev prometheus`."""
