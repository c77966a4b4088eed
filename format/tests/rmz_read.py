#!/usr/bin/env python3
"""A second reader of .rmz archives, written from SPEC.md alone: `rmz_read.py FILE...`.

Prints a line of JSON for each record that may be released, then `verdict CLASS: why`.
Exit code 0 if every archive is complete, else 10. Needs the zstandard module or the zstd program.
"""
import hashlib, json, struct, subprocess, sys, zlib

try:
    import zstandard
    def unzstd(data, size): return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
except ImportError:
    def unzstd(data, size):
        return subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=True).stdout

class Bad(Exception): pass
def bad(cls, why): raise Bad(cls, why)
def need(ok, why, cls="damaged"): ok or bad(cls, why)

class Body:                                                     # §6
    def __init__(self, data): self.data, self.pos, self.shortest = data, 0, False
    def take(self, n):
        need(n <= len(self.data) - self.pos, "a body ends inside a field")
        self.pos += n
        return self.data[self.pos - n:self.pos]
    def u8(self): return self.take(1)[0]
    def num(self, bits=64):
        n = self.u8()
        if n > 250:
            need(n < 0xFE, "no number begins like this")
            least = (251, 1 << 16, 1 << 32)[n - 0xFB]
            n = int.from_bytes(self.take(2 << (n - 0xFB)), "little")
            need(n >= least or not self.shortest, "a number is longer than it must be")
        need(n < 1 << bits, "a number is too large for its field")
        return n
    def u16(self): return self.num(16)
    def u32(self): return self.num(32)
    def flag(self):
        n = self.u8()
        need(n < 2, "neither 00 nor 01")
        return n == 1
    def opt(self, read): return read() if self.flag() else None
    def raw(self): return self.take(self.num())
    def text(self):
        try: return self.raw().decode()
        except UnicodeDecodeError: bad("damaged", "a text is not UTF-8")
    def list(self, read, most=None):                            # §9
        count = self.num()
        need(most is None or count <= most, "a list that is too long")
        return [read() for _ in range(count)]
    def tup(self, *reads): return tuple(read() for read in reads)
    def enum(self, *variants):
        n = self.u32()
        need(n < len(variants), "an unknown variant")
        return (n,) + self.tup(*variants[n])

def header(b):                                                  # §7.1
    b.tup(b.text, b.text, b.text, b.num, b.num); b.enum((), (), ()); b.enum((), (), (), ())
    b.list(lambda: b.tup(b.text, b.text, b.u16), 16384); b.opt(b.text); b.enum((), (), (), (), ())
    b.list(lambda: b.tup(b.u32, b.num, b.num), 65536); b.list(b.u32, 65536)
    b.list(b.raw, 16384); b.list(b.raw, 16384); b.list(b.text, 16384); b.list(b.text, 16384)
    b.tup(b.flag, b.flag, b.u32, b.u32)                         # zigzag of an i32 has 32 bits
    b.enum((), (lambda: b.list(lambda: b.tup(b.num, b.num), 65536),), (b.u32, b.u32))
    b.list(lambda: b.tup(b.text, b.text), 16384)

class Archive:
    def __init__(self, data):
        self.data, self.pos, self.id, self.seq = data, 0, None, 0
        self.dbs, self.records, self.functions, self.rdb = {}, 0, 0, []
        self.index, self.index_at, self.run = [], 0, None
    def take(self, n, why):
        need(len(self.data) - self.pos >= n, "the stream ends in " + why, "incomplete")
        self.pos += n
        return self.data[self.pos - n:self.pos]

    def read(self):
        magic, data = b"\x89RMZ\r\n\x1a\n", self.data           # §3, §10.1
        need(data and data[:8] == magic[:len(data)], "not the magic", "not-an-archive")
        _, major, self.minor, required, _, crc = struct.unpack("<8sBBBBI", self.take(16, "the preamble"))
        need(zlib.crc32(data[:12]) == crc, "preamble CRC")
        need(major == 1, f"major version {major}", "unsupported")
        need(required == 0, f"required features {required:#x}", "unsupported")
        while True:
            at = self.pos
            kind, codec, stored, body = self.frame()
            if self.run is not None and kind not in (0x03, 0x7E): bad("damaged", "a run of fragments is interrupted")
            if kind == 0x7F: return self.end(at, Body(body))
            count = 0
            if kind == 0x01: header(Body(body))
            elif kind == 0x7E:                                  # §7.4
                b = Body(body)
                _, records = b.tup(b.text, b.num)
                need(records == self.records, "ABORT's number of records")
                bad("incomplete", "the exporter gave up")
            elif kind == 0x02: count = yield from self.entries(body)
            elif kind == 0x03:
                joined = self.fragment(Body(body))
                if joined is not None: count = yield from self.entries(joined, only_one=True)
            elif kind == 0x82: Body(body).text()
            elif kind == 0x90:                                  # §7.7
                b = Body(body)
                b.tup(lambda: b.enum((), (), ()), b.u16, b.flag, b.text, b.raw)
            elif kind == 0x81:                                  # §7.5
                b = Body(body)
                need(b.list(lambda: b.tup(b.u8, b.u32, b.u32, b.u32)) == self.index, "INDEX")
                self.index_at = at
            self.index.append((kind, stored, len(body), count))

    def frame(self):                                            # §4
        h = self.take(40, "a frame header")
        sync, kind, codec, zero, ident, seq, stored, raw, pcrc, hcrc = struct.unpack("<4sBBHQQIIII", h)
        need(sync == b"\xf5RMF" and zlib.crc32(h[:36]) == hcrc, "sync or header CRC")
        need(zero == 0 and self.id in (None, ident) and seq == self.seq, "reserved, archive_id or seq")
        need(kind in (1, 2, 3, 0x7E, 0x7F) or kind >= 0x80, f"frame type {kind:02x}", "unsupported")
        need(codec < 2, f"codec {codec}", "unsupported")
        need(codec == 0 or kind not in (1, 0x7E, 0x7F), "this frame must be stored")
        need(1 <= raw <= {1: 1 << 20, 0x82: 1 << 16}.get(kind, 1 << 24), "raw_len")
        need(stored == raw if codec == 0 else 1 <= stored <= raw + 1024, "stored_len")
        need((seq == 0) == (kind == 1) and (not self.index_at or kind == 0x7F), "order of frames")
        payload = self.take(stored, "a payload")
        need(zlib.crc32(payload) == pcrc, "payload CRC")
        self.id, self.seq = ident, seq + 1
        return kind, codec, stored, self.unpack(payload, raw) if codec else payload
    def unpack(self, payload, raw):
        need(payload[:4] == b"\x28\xb5\x2f\xfd" and len(payload) > 5 and payload[4] & 7 == 4, "zstd frame header")
        desc = payload[4]                                       # RFC 8878 §3.1.1.1
        size_len = (1 if desc & 0x20 else 0, 2, 4, 8)[desc >> 6]
        start = 5 + (not desc & 0x20)
        base = 1 << 10 + (payload[5] >> 3)                      # the window, unless there is one segment
        need(desc & 0x20 or base + base // 8 * (payload[5] & 7) <= 1 << 27, "zstd window")
        size = int.from_bytes(payload[start:start + size_len], "little") + (256 if size_len == 2 else 0)
        need(size_len and size == raw, "zstd content size")
        pos, last = start + size_len, False                     # walk the blocks: one frame, nothing after it
        while not last:
            need(len(payload) >= pos + 3, "zstd block header")
            block = int.from_bytes(payload[pos:pos + 3], "little")
            last, pos = block & 1, pos + 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
        need(pos + 4 == len(payload), "zstd frame length")
        try: body = unzstd(payload, raw)
        except Exception as error: bad("damaged", f"zstd: {error}")
        need(len(body) == raw, "raw_len")
        return body

    def fragment(self, b):                                      # §7.3
        head_len = b.u8()
        need(head_len < 251, "length of a fragment head")
        head = Body(b.take(head_len))
        part, last, total = head.tup(head.u32, head.flag, head.num)
        run = self.run or (0, total, b"")
        data = b.data[b.pos:]
        need((part, total) == run[:2] and total <= 1 << 40 and data, "part or total_len")
        joined = run[2] + data
        need(len(joined) <= total and last == (len(joined) == total), "length of the parts")
        self.run = None if last else (part + 1, total, joined)
        return joined if last else None

    def entries(self, body, only_one=False):                    # §7.2
        b, lines, seen, skipped, context, totals = Body(body), [], set(), 0, None, []
        while b.pos < len(body):
            kind = b.u8()
            e = Body(b.raw())
            need(1 <= kind <= 5 or kind >= 0x80, f"entry kind {kind:02x}", "unsupported")
            need((kind == 5) == (context is None), "CONTEXT is not the first entry, or not the only one")
            need(len(lines) + skipped + 1 < 131072 or kind == 5, "number of entries")
            if kind == 5: context = e.tup(e.num, lambda: e.enum((), (), ())[0], e.u16, e.u32)
            elif kind in (1, 2):
                db, expire, idle, freq, key, value = e.tup(e.u32, lambda: e.opt(e.num), lambda: e.opt(e.num),
                                                           lambda: e.opt(e.u8), e.raw, e.raw)
                need(value and (idle is None or freq is None), "value, idle_s or freq")
                lines.append(dict(kind=kind, db=db, key=key.hex(), value=value.hex(), expire_at_ms=expire, idle_s=idle, freq=freq))
                totals.append((db, (1, expire is not None, len(value), len(key), 0)))
            elif kind == 3: lines.append(dict(kind=3, value=e.raw().hex()))
            elif kind == 4:
                db, key = e.tup(e.u32, e.raw)
                lines.append(dict(kind=4, db=db, key=key.hex()))
                totals.append((db, (0, 0, 0, 0, 1)))
            else: skipped += 1
            if kind in (1, 2, 4):
                need(len(key) <= 1 << 24, "length of a key")
                need((db, key) not in seen, "a key stands twice in a body")
                seen.add((db, key))
        need(context and (not only_one or len(lines) == 1), "CONTEXT, or more than one record in a run")
        for db, add in totals: self.dbs[db] = tuple(map(sum, zip(self.dbs.get(db, (0,) * 5), add)))
        need(len(self.dbs) <= 65536, "number of databases")
        self.records += len(lines)
        self.functions += sum(line["kind"] == 3 for line in lines)
        self.rdb.append(context[2])
        yield from (dict(line, context=context) for line in lines)
        return len(lines)

    def end(self, at, b):                                       # §7.6, §8
        b.shortest = True
        frames, records = b.tup(b.num, b.num)
        per_db = b.list(lambda: b.tup(b.u32, b.num, b.num, b.num, b.num, b.num), 65536)
        functions, low, high = b.tup(b.num, b.u16, b.u16)
        b.enum((b.num, b.num), (b.num, b.num), (lambda: b.list(lambda: b.tup(b.u32, b.num), 16384),), (b.num, b.num, b.num))
        counts = b.list(lambda: b.tup(b.u32, *[b.num] * 7), 65536)
        b.tup(b.flag, b.num, b.num)
        digest = b.take(32)
        need(b.pos == len(b.data) or self.minor > 0, "bytes behind the last field of END")
        need(digest == hashlib.sha256(self.data[:at]).digest(), "sha256")
        need((frames, records, functions) == (self.seq - 1, self.records, self.functions), "totals")
        need(per_db == [(db, *self.dbs[db]) for db in sorted(self.dbs)], "per_db")
        need((low, high) == (min(self.rdb, default=0), max(self.rdb, default=0)), "RDB versions")
        dbs = [count[0] for count in counts]
        need(dbs == sorted(set(dbs)), "order of counts")
        need(all(c[3] == sum((self.dbs.get(c[0], (0,) * 5))[i] for i in (0, 4)) for c in counts), "written")
        t = self.take(40, "the trailer")
        need(t[32:] == b"\x89RMZEND\n" and zlib.crc32(t[:28]) == int.from_bytes(t[28:32], "little"), "trailer")
        need(struct.unpack("<QQQI", t[:28]) == (at, self.index_at, self.id, 0), "trailer")
        need(self.pos == len(self.data), "bytes after the trailer", "trailing-data")

def main():
    code = 0
    for path in sys.argv[1:]:
        with open(path, "rb") as file: archive = Archive(file.read())
        try:
            for line in archive.read(): print(json.dumps(line, separators=(",", ":")))
            print("verdict complete:", path)
        except Bad as error:
            print(f"verdict {error.args[0]}: {path}: {error.args[1]}, byte {archive.pos}")
            code = 10
    sys.exit(code)

if __name__ == "__main__":
    main()
