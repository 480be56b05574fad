# SPDX-License-Identifier: Apache-2.0
"""What a tree may look like after a crash: every state that each name and each file had since it was last durable.

The names are entries (directory id, name) -> node id. An entry keeps every binding that it had since its last
durable one; after a crash it must be one of them. A file is a row of 16-byte words; each word says which file, which
write and which place it belongs to, so that a byte that was never written there is recognised. A file that is not
reported torn must be exactly one of the states that it went through since its last fsync; of a torn one each word must
be one that was written there, or, where it was not on disk yet, zeros.
"""

import itertools
from array import array

WORD = 16
MAGIC = 0x434B5054


class CheckError(Exception):
    """The tree is not what it may be; the text says where and what."""


def words_run(node_id, first, count, version):
    """The bytes of the words `first`, `first` + 1, ... of a file, all from one write (0: a hole)."""
    words = array("Q", bytes(WORD * count))
    if version:
        words[0::2] = array("Q", [MAGIC | node_id << 32]) * count
        words[1::2] = array("Q", range(version | first << 32, version | (first + count) << 32, 1 << 32))
    return words.tobytes()


def words_bytes(node_id, versions):
    """The bytes of a whole file whose words are from these writes."""
    runs, first = [], 0
    for version, run in itertools.groupby(versions):
        count = len(list(run))
        runs.append(words_run(node_id, first, count, version))
        first += count
    return b"".join(runs)


class Node:
    """A directory or a regular file. Of a file: the durable versions, and the changes since."""

    def __init__(self, node_id, is_directory):
        self.id = node_id
        self.is_directory = is_directory
        self.numbers = set()     # inode numbers that it was seen under
        self.base = array("I")   # versions by word at the last durable moment
        self.changes = []        # ("write", first word, count, version) or ("truncate", words)
        self.current = array("I")
        self.synced = False      # made durable at least once
        self.kept = False        # durable, and had a name at every moment since
        self.writer_closed = 0.0  # time.monotonic() of the last close of a descriptor that can write

    def states(self):
        """Every state since the last durable moment, the durable one first."""
        state = array("I", self.base)
        yield state
        for change in self.changes:
            state = apply_change(array("I", state), change)
            yield state

    def words_allowed(self):
        """Of a torn file: by word, the versions that may be there, and the most words that it had."""
        most = max(len(state) for state in self.states())
        allowed = [set() for _ in range(most)]
        for index, version in enumerate(self.base):
            allowed[index].add(version)
        for change in self.changes:
            if change[0] == "write":
                for index in range(change[1], change[1] + change[2]):
                    allowed[index].add(change[3])
            else:
                for index in range(change[1], most):
                    allowed[index].add(0)
        return allowed

    def words_kept(self):
        """How many leading words every state since the last durable moment has."""
        return min(len(state) for state in self.states())


def apply_change(state, change):
    if change[0] == "truncate":
        words = change[1]
        if words <= len(state):
            del state[words:]
        else:
            state.extend(array("I", bytes(4 * (words - len(state)))))
        return state
    _, first, count, version = change
    if first + count > len(state):
        state.extend(array("I", bytes(4 * (first + count - len(state)))))
    state[first:first + count] = array("I", [version]) * count
    return state


class Tree:
    """All nodes and entries of one writer. Node 0 is its top directory."""

    def __init__(self):
        self.nodes = {0: Node(0, True)}
        self.entries = {}   # (directory id, name) -> list of bindings since the last durable one, the newest last
        self.named = {}     # node id -> its names now, as the keys of a dictionary
        self.next_version = 1
        self.pending = []   # effects of the operation that was under way when the writer was stopped
        self.stopped = 0.0  # time.monotonic() of that moment
        self.slowest_sync = 0.0
        self.open = set()   # ids of the files that were open for writing then

    # -- what the writer asks ------------------------------------------------------------------------------

    def bound(self, directory, name):
        return self.entries.get((directory, name), [None])[-1]

    def names_of(self, node_id):
        return list(self.named.get(node_id, ()))

    def children(self, directory):
        return {name: bindings[-1] for (parent, name), bindings in self.entries.items()
                if parent == directory and bindings[-1] is not None}

    def path_of(self, node_id):
        """Components from the top; a directory has one name, of a file any is taken."""
        parts = []
        while node_id != 0:
            directory, name = self.names_of(node_id)[0]
            parts.append(name)
            node_id = directory
        return parts[::-1]

    def is_below(self, node_id, ancestor):
        while node_id != 0:
            if node_id == ancestor:
                return True
            node_id = self.names_of(node_id)[0][0]
        return ancestor == 0

    def set_entries(self, entries):
        """After a check: these and no others."""
        self.entries, self.named = entries, {}
        for key, bindings in entries.items():
            self.named.setdefault(bindings[-1], {})[key] = None

    def new_node(self, is_directory):
        node = Node(max(self.nodes) + 1, is_directory)
        self.nodes[node.id] = node
        return node

    # -- what the writer did -------------------------------------------------------------------------------

    def begin(self, *effects):
        """Says what the next operation will change: ("bind", directory, name, node id or None), ("change", id, change)."""
        self.pending = list(effects)

    def commit(self):
        for effect in self.pending:
            self._take(effect)
        self.pending = []

    def _take(self, effect):
        if effect[0] == "bind":
            _, directory, name, node_id = effect
            before = self.bound(directory, name)
            self.entries.setdefault((directory, name), [None]).append(node_id)
            if node_id is not None:
                self.named.setdefault(node_id, {})[directory, name] = None
            if before is not None:
                del self.named[before][directory, name]
            if before is not None and not self.named[before]:
                self.nodes[before].kept = False
        else:
            node = self.nodes[effect[1]]
            node.changes.append(effect[2])
            node.current = apply_change(node.current, effect[2])

    # -- what is durable -----------------------------------------------------------------------------------

    def _entry_durable(self, key):
        self.entries[key] = [self.entries[key][-1]]

    def _path_durable(self, directory):
        while directory != 0:
            names = self.names_of(directory)
            if not names:
                return
            self._entry_durable(names[0])
            node = self.nodes[directory]
            node.synced = node.kept = True
            directory = names[0][0]

    def file_durable(self, node_id):
        """fsync of the file returned 0: its bytes, its names and the way to them."""
        node = self.nodes[node_id]
        node.base, node.changes, node.synced = array("I", node.current), [], True
        for key in self.names_of(node_id):
            self._entry_durable(key)
            self._path_durable(key[0])
            node.kept = True

    def directory_durable(self, directory):
        """fsync of the directory: its names, as far as they do not name files that were never synced."""
        for key in [key for key in self.entries if key[0] == directory]:
            child = self.entries[key][-1]
            if child is None or self.nodes[child].synced and not self.nodes[child].changes:
                self._entry_durable(key)
                if child is not None:
                    self.nodes[child].synced = self.nodes[child].kept = True
            elif self.nodes[child].is_directory:
                self._entry_durable(key)
                self.nodes[child].synced = self.nodes[child].kept = True
        self._path_durable(directory)

    def all_durable(self):
        """Nothing is behind any more (or only a process died): all that was done stays."""
        for node in self.nodes.values():
            node.base, node.changes = array("I", node.current), []
            node.synced = True
        for key in self.entries:
            self._entry_durable(key)
        for node in self.nodes.values():
            node.kept = bool(self.names_of(node.id))

    def interrupted(self):
        """The operation under way when the crash came may have happened."""
        for effect in self.pending:
            self._take(effect)
            if effect[0] == "bind" and self.entries[effect[1], effect[2]][-2] is not None:
                self.nodes[self.entries[effect[1], effect[2]][-2]].kept = False
        self.pending = []


def decode_words(content):
    words = array("Q")
    words.frombytes(content[:len(content) // WORD * WORD])
    return words


def word_version(path, node_id, words, index):
    """The write that the word at `index` came from; 0 for zeros. Anything else was never written there."""
    tag, place = words[2 * index], words[2 * index + 1]
    if tag == 0 and place == 0:
        return 0
    if tag != (MAGIC | node_id << 32) or place >> 32 != index:
        raise CheckError(f"{path}: offset {index * WORD} holds {tag:#018x} {place:#018x}, which was never written "
                         f"there (file {node_id})")
    return place & 0xFFFFFFFF


def check_content(path, node, content, torn):
    """One of the file's states since its last durable one; of a torn file each word one that was written there."""
    for state in node.states():
        if len(content) == WORD * len(state) and content == words_bytes(node.id, state):
            return array("I", state)
    words = decode_words(content)
    versions = array("I", (word_version(path, node.id, words, i) for i in range(len(words) // 2)))
    if not torn:
        sizes = sorted({WORD * len(state) for state in node.states()})
        raise CheckError(f"{path}: {len(content)} bytes that are no state of the file since its last fsync "
                         f"({len(node.changes)} changes, sizes {sizes}) and it is not reported torn")
    allowed = node.words_allowed()
    untouched = node.words_kept()
    if len(content) < WORD * untouched and node.synced:
        raise CheckError(f"{path}: {len(content)} bytes, but {WORD * untouched} were fsynced")
    for index, version in enumerate(versions):
        unsynced = index >= len(node.base) or len(allowed[index]) > 1
        if index >= len(allowed) or version not in allowed[index] and not (version == 0 and unsynced):
            raise CheckError(f"{path}: offset {index * WORD} is from write {version}, which was not the last there")
    return versions
