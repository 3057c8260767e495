"""One generator of several: saves conversations to the lake that the variable LAKE names."""

import os
import socket

from afterimage.storage import Conversation, SQLStorage

BATCHES = int(os.environ.get("BATCHES", "10"))

store = SQLStorage(os.environ["LAKE"], metadata_fields=["generator"])
for number in range(BATCHES):
    talk = [
        {"role": "user", "content": f"What is {number} + {number}?"},
        {"role": "assistant", "content": str(2 * number)},
    ]
    name = f"{socket.gethostname()}-{os.getpid()}"
    store.save_conversations(
        [Conversation(conversations=talk, metadata={"generator": name, "number": number})] * 60
    )
print(store.count_conversations(), "conversations in the lake")
