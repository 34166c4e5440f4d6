"""The last thing `up` prints: who can sign in, and three commands that move money."""

from __future__ import annotations

from rich.text import Text

from payflow.run.instance import Instance, command_for
from payflow.run.supervisor.console import make_console

_USERS = (
    ("demo", "cust_001, ACC001 with 1,000,000.00 USD"),
    ("second", "cust_002, ACC002 with 8,500.00 USD"),
    ("unverified", "cust_003, ACC003, not identified (KYC)"),
    ("listed", "cust_004, ACC004, a name on the sanctions list"),
)


def curl_commands(instance: Instance) -> tuple[str, ...]:
    """Three commands for a POSIX shell, to be pasted in this order, as often as one likes."""
    url = instance.public_url
    login = (
        f"TOKEN=$(curl -s {url}/auth/login -H 'Content-Type: application/json' \\\n"
        """  -d '{"username":"demo","password":"password123"}' | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')"""
    )
    pay = (
        "KEY=$(uuidgen 2>/dev/null || cat /proc/sys/kernel/random/uuid); "
        f"curl -s {url}/payment/confirm \\\n"
        """  -H "Authorization: Bearer $TOKEN" -H "Idempotency-Key: $KEY" -H 'Content-Type: application/json' \\\n"""
        """  -d '{"transaction_id":"'"$KEY"'","customer_id":"cust_001","amount":1000.00,"""
        """"from_account":"ACC001","to_account":"ACC002"}'; echo"""
    )
    show = f"""curl -s "{url}/payments/$KEY" -H "Authorization: Bearer $TOKEN"; echo"""
    return login, pay, show


def print_welcome(instance: Instance, *, is_detached: bool) -> None:
    """Print the demo users, where the operators' passwords are, and the commands; how to stop it comes last."""
    console = make_console()
    console.print()
    console.print(Text("Demo users, all with the password ").append("password123", style="bold"))
    for name, what in _USERS:
        console.print(Text(f"  {name:<12}", style="bold").append(what, style="default"))
    console.print(Text("Operators' passwords are in ").append(str(instance.operators_file), style="bold"))
    console.print()
    console.print("Sign in, pay, and look at the payment:")
    for command in curl_commands(instance):
        console.print(Text(command, style="cyan"))
    console.print()
    or_else = "" if is_detached else " (or Ctrl-C)"
    console.print(f"API: {instance.public_url}/docs   Stop: {command_for(instance, 'down')}{or_else}")
