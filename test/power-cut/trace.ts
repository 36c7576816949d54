/**
 * Reads what `strace -f -xx` wrote down: every write and sync of the store's file, and every line
 * that the workload told, in the order in which they began and ended.
 */

/** A write or a sync of the store's file. */
export interface Call {
  readonly kind: 'write' | 'sync';
  /** Line of the trace in which it began, and in which it had ended; Infinity: never. */
  readonly begin: number;
  end: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
  /** Durable when it has ended: the descriptor was opened with O_DSYNC. */
  readonly isDurable: boolean;
}

export interface Told {
  readonly line: number;
  readonly text: string;
}

export interface Trace {
  readonly calls: readonly Call[];
  readonly told: readonly Told[];
  readonly lineCount: number;
}

const BEGIN = /^(\d+)\s+(\w+)\((.*)$/;
const RESUMED = /^(\d+)\s+<\.\.\. (\w+) resumed>(.*)$/;
const RESULT = /\)\s+= (-?\d+)[^"]*$/;
const UNFINISHED = ' <unfinished ...>';
const WRITES = new Set(['write', 'writev', 'pwrite64', 'pwritev', 'pwritev2']);

interface Open {
  readonly isStore: boolean;
  readonly isDurable: boolean;
}

interface Begun {
  readonly name: string;
  readonly text: string;
  readonly call: Call | undefined;
}

export class TraceReader {
  readonly #path: string;
  readonly #descriptors = new Map<number, Open>();
  /** By thread. */
  readonly #begun = new Map<string, Begun>();
  readonly #calls: Call[] = [];
  readonly #told: Told[] = [];
  #line = 0;

  constructor(path: string) {
    this.#path = path;
  }

  /** Takes the next line of the trace. */
  take(line: string): void {
    this.#line++;
    const resumed = RESUMED.exec(line);
    if (resumed !== null) {
      const thread = resumed[1] as string;
      const begun = this.#begun.get(thread);
      this.#begun.delete(thread);
      if (begun !== undefined) this.#end(begun, line);
      return;
    }
    const begin = BEGIN.exec(line);
    if (begin === null) return;
    const [, thread, name, text] = begin as unknown as [string, string, string, string];
    const begun = { name, text, call: this.#toCall(name, text) };
    if (line.endsWith(UNFINISHED)) this.#begun.set(thread, begun);
    else this.#end(begun, line);
  }

  trace(): Trace {
    return { calls: this.#calls, told: this.#told, lineCount: this.#line };
  }

  #toCall(name: string, text: string): Call | undefined {
    const descriptor = Number.parseInt(text, 10);
    const open = this.#descriptors.get(descriptor);
    if (open?.isStore !== true) return undefined;
    const isSync = name === 'fdatasync' || name === 'fsync';
    if (!isSync && !WRITES.has(name)) return undefined;
    const call: Call = {
      kind: isSync ? 'sync' : 'write',
      begin: this.#line,
      end: Number.POSITIVE_INFINITY,
      offset: isSync ? 0 : offsetOf(text),
      bytes: isSync ? new Uint8Array(0) : bytesOf(text),
      isDurable: open.isDurable,
    };
    this.#calls.push(call);
    return call;
  }

  #end({ name, text, call }: Begun, line: string): void {
    const result = Number(RESULT.exec(line)?.[1] ?? Number.NaN);
    if (call !== undefined) {
      if (call.kind === 'write' && result !== call.bytes.length) {
        throw new Error(`line ${this.#line}: a write of ${call.bytes.length} bytes gave ${result}`);
      }
      call.end = this.#line;
    } else if (name === 'openat') {
      const path = Buffer.from(bytesOf(text)).toString();
      const isStore = path === this.#path;
      this.#descriptors.set(result, { isStore, isDurable: text.includes('O_DSYNC') });
    } else if (name === 'close') {
      this.#descriptors.delete(Number.parseInt(text, 10));
    } else if (name === 'write' && text.startsWith('1, ')) {
      const told = Buffer.from(bytesOf(text)).toString();
      // What helped to start the workload may write to its own output, too.
      if (told.startsWith('{"step"')) this.#told.push({ line: this.#line, text: told });
    }
  }
}

/** The bytes of all strings of a call, in order. */
function bytesOf(text: string): Uint8Array {
  const parts: Buffer[] = [];
  for (let at = text.indexOf('"'); at !== -1; ) {
    const end = text.indexOf('"', at + 1);
    parts.push(Buffer.from(text.slice(at + 1, end).replaceAll('\\x', ''), 'hex'));
    at = text.indexOf('"', end + 1);
  }
  return Buffer.concat(parts);
}

/** The last argument. */
function offsetOf(text: string): number {
  const found = /, (\d+)(?:\)\s+=|, 0\)\s+=| <unfinished)/.exec(text.slice(text.lastIndexOf('"')));
  if (found === null) throw new Error(`a write without a position: …${text.slice(-80)}`);
  return Number(found[1]);
}
