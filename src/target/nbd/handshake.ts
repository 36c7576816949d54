/**
 * The handshake of one connection: client flags, then options until one enters transmission.
 *
 * 1. Nothing is kept of an option before its length was checked; unknown ones are skipped unread.
 * 2. Every option but NBD_OPT_EXPORT_NAME is answered, in order, and ends with one final reply.
 * 3. With TLS begun, nothing that was said in the clear counts any more. Where TLS is required,
 *    only NBD_OPT_STARTTLS and NBD_OPT_ABORT are answered in the clear.
 * 4. Metadata contexts count only for the export that they were set for.
 *
 * Source: proto.md, "Fixed newstyle negotiation", "Option types".
 */
import { isStoreError } from '../../base/store-error.js';
import { getU32 } from './big-endian.js';
import type { ByteSource } from './byte-source.js';
import { type ExportTable, type ResolvedExport, resolveExport } from './exports.js';
import { listContexts, type MetaContext, selectContexts } from './meta-context.js';
import * as nbd from './protocol.js';
import { type Step, violation } from './step.js';
import * as wire from './wire-handshake.js';
import { decodeString } from './wire-string.js';
import type { HeaderStyle } from './wire-transmission.js';

/** Data that is kept: a name and queries. */
const OPTION_BYTES_MAX = 64 * 1024;
/** Data that is skipped for the sake of a polite answer; a longer option ends the connection. */
const OPTION_SKIP_BYTES_MAX = 1024 * 1024;
const CLIENT_FLAGS = nbd.NBD_FLAG_C_FIXED_NEWSTYLE | nbd.NBD_FLAG_C_NO_ZEROES;

const KNOWN_OPTIONS: ReadonlySet<number> = new Set([
  nbd.NBD_OPT_EXPORT_NAME,
  nbd.NBD_OPT_ABORT,
  nbd.NBD_OPT_LIST,
  nbd.NBD_OPT_STARTTLS,
  nbd.NBD_OPT_INFO,
  nbd.NBD_OPT_GO,
  nbd.NBD_OPT_STRUCTURED_REPLY,
  nbd.NBD_OPT_LIST_META_CONTEXT,
  nbd.NBD_OPT_SET_META_CONTEXT,
  nbd.NBD_OPT_EXTENDED_HEADERS,
]);

/** Whether clients may, or must, go on encrypted. */
export type TlsMode = 'off' | 'allow' | 'require';

/** What was agreed. */
export interface Agreement extends ResolvedExport {
  readonly style: HeaderStyle;
  readonly contexts: readonly MetaContext[];
}

export interface HandshakeOptions {
  readonly exports: ExportTable;
  readonly optionsMax: number;
  readonly tls: TlsMode;
  readonly send: (bytes: Uint8Array) => void;
}

/** An option whose data is on its way. */
interface OpenOption extends wire.OptionHeader {
  /** Undefined if the data is only skipped. */
  readonly data: Uint8Array | undefined;
  filledBytes: number;
}

/** An export was found, or the reply that says why not. */
type Lookup =
  | { readonly kind: 'found'; readonly found: ResolvedExport }
  | { readonly kind: 'refused'; readonly reply: number; readonly message: string };

export class Handshake {
  readonly #options: HandshakeOptions;
  #hasClientFlags = false;
  #wantsZeroes = true;
  #optionCount = 0;
  #open: OpenOption | undefined;
  #style: HeaderStyle = 'simple';
  #contexts: readonly MetaContext[] = [];
  #contextsExport: string | undefined;
  #isEncrypted = false;
  #agreement: Agreement | undefined;

  constructor(options: HandshakeOptions) {
    this.#options = options;
  }

  /** Defined once transmission is entered. */
  get agreement(): Agreement | undefined {
    return this.#agreement;
  }

  greet(): void {
    this.#options.send(wire.encodeGreeting());
  }

  /** Deals with the next item: flags, a header, or an option's data. */
  step(source: ByteSource): Step {
    if (!this.#hasClientFlags) return this.#readClientFlags(source);
    const open = this.#open;
    if (open === undefined) return this.#readOptionHeader(source);
    const restBytes = open.dataBytes - open.filledBytes;
    open.filledBytes +=
      open.data === undefined
        ? source.skip(restBytes)
        : source.copy(open.data, open.filledBytes, restBytes);
    if (open.filledBytes < open.dataBytes) return 'wait';
    this.#open = undefined;
    return this.#answer(open);
  }

  #readClientFlags(source: ByteSource): Step {
    if (!source.locate(wire.CLIENT_FLAGS_BYTES)) return 'wait';
    const flags = getU32(source.bytes, source.at);
    source.skip(wire.CLIENT_FLAGS_BYTES);
    // "the server MUST drop the TCP connection if the client sets an unknown flag"
    if ((flags & ~CLIENT_FLAGS) !== 0) return violation(`unknown client flags 0x${hex(flags)}`);
    this.#hasClientFlags = true;
    this.#wantsZeroes = (flags & nbd.NBD_FLAG_C_NO_ZEROES) === 0;
    return 'next';
  }

  #readOptionHeader(source: ByteSource): Step {
    if (!source.locate(wire.OPTION_HEADER_BYTES)) return 'wait';
    const header = wire.decodeOptionHeader(source.bytes, source.at);
    if (header === undefined) return violation('an option does not begin with IHAVEOPT');
    source.skip(wire.OPTION_HEADER_BYTES);
    const { optionsMax } = this.#options;
    if (++this.#optionCount > optionsMax) return violation(`more than ${optionsMax} options`);
    const { option, dataBytes } = header;
    if (dataBytes > OPTION_SKIP_BYTES_MAX) {
      return violation(`option ${option} has ${dataBytes} bytes of data`);
    }
    const isKept = KNOWN_OPTIONS.has(option) && dataBytes <= OPTION_BYTES_MAX;
    this.#open = {
      option,
      dataBytes,
      data: isKept ? new Uint8Array(dataBytes) : undefined,
      filledBytes: 0,
    };
    return 'next';
  }

  #answer({ option, dataBytes, data }: OpenOption): Step {
    if (option === nbd.NBD_OPT_STARTTLS) return this.#answerStartTls(option, dataBytes);
    const isTooOpen = this.#options.tls === 'require' && !this.#isEncrypted;
    if (isTooOpen && option !== nbd.NBD_OPT_ABORT) {
      const message = 'this server talks to nobody without TLS';
      if (option === nbd.NBD_OPT_EXPORT_NAME) return violation(message);
      return this.#refuse(option, nbd.NBD_REP_ERR_TLS_REQD, message);
    }
    switch (option) {
      case nbd.NBD_OPT_EXPORT_NAME:
        return this.#answerExportName(data);
      case nbd.NBD_OPT_ABORT:
        this.#ack(option);
        return 'disconnect';
      default:
        break;
    }
    if (!KNOWN_OPTIONS.has(option)) {
      return this.#refuse(option, nbd.NBD_REP_ERR_UNSUP, `option ${option} is not known here`);
    }
    // "replaces all previously-set metadata contexts (including when this command fails)"
    if (option === nbd.NBD_OPT_SET_META_CONTEXT) this.#contexts = [];
    if (data === undefined) {
      const message = `${dataBytes} bytes of data, more than ${OPTION_BYTES_MAX}`;
      return this.#refuse(option, nbd.NBD_REP_ERR_TOO_BIG, message);
    }
    switch (option) {
      case nbd.NBD_OPT_LIST:
        return this.#answerList(option, data);
      case nbd.NBD_OPT_STRUCTURED_REPLY:
        return this.#answerStructuredReply(option, data);
      case nbd.NBD_OPT_EXTENDED_HEADERS:
        return this.#answerExtendedHeaders(option, data);
      case nbd.NBD_OPT_INFO:
      case nbd.NBD_OPT_GO:
        return this.#answerInfo(option, data);
      default:
        return this.#answerMetaContext(option, data);
    }
  }

  #answerStartTls(option: number, dataBytes: number): Step {
    if (this.#options.tls === 'off') {
      return this.#refuse(option, nbd.NBD_REP_ERR_UNSUP, 'this server has no TLS');
    }
    if (dataBytes > 0) return this.#invalid(option, 'TLS takes no data');
    if (this.#isEncrypted) return this.#invalid(option, 'this connection is encrypted already');
    this.#ack(option);
    this.#isEncrypted = true;
    this.#style = 'simple';
    this.#contexts = [];
    this.#contextsExport = undefined;
    return 'starttls';
  }

  /** There is no reply that says no: "If the server is unwilling [...], it MUST terminate". */
  #answerExportName(data: Uint8Array | undefined): Step {
    if (this.#style === 'extended') return violation('NBD_OPT_EXPORT_NAME with extended headers');
    const name = data === undefined ? undefined : decodeString(data);
    if (name === undefined) return violation('the export name is not a string of the protocol');
    const lookup = this.#look(name);
    if (lookup.kind === 'refused') return violation(lookup.message);
    const { found } = lookup;
    const flags = this.#flagsOf(found);
    const { sizeBytes } = found.target;
    this.#options.send(wire.encodeExportNameReply(sizeBytes, flags, this.#wantsZeroes));
    return this.#enter(found);
  }

  #answerList(option: number, data: Uint8Array): Step {
    if (data.length > 0) return this.#invalid(option, 'the list of exports takes no data');
    for (const name of this.#options.exports.list()) {
      this.#options.send(wire.encodeServerReply(option, name));
    }
    return this.#ack(option);
  }

  #answerStructuredReply(option: number, data: Uint8Array): Step {
    if (data.length > 0) return this.#invalid(option, 'structured replies take no data');
    if (this.#style === 'extended') {
      const message = 'extended headers were agreed on, which include structured replies';
      return this.#refuse(option, nbd.NBD_REP_ERR_EXT_HEADER_REQD, message);
    }
    this.#style = 'structured';
    return this.#ack(option);
  }

  #answerExtendedHeaders(option: number, data: Uint8Array): Step {
    if (data.length > 0) return this.#invalid(option, 'extended headers take no data');
    this.#style = 'extended';
    return this.#ack(option);
  }

  #answerInfo(option: number, data: Uint8Array): Step {
    const request = wire.decodeInfoRequest(data);
    if (request === undefined) return this.#invalid(option, 'the request does not add up');
    const lookup = this.#look(request.name);
    if (lookup.kind === 'refused') return this.#refuse(option, lookup.reply, lookup.message);
    const { found } = lookup;
    const { send } = this.#options;
    send(wire.encodeInfoExport(option, found.target.sizeBytes, this.#flagsOf(found)));
    if (request.infos.includes(nbd.NBD_INFO_NAME)) send(wire.encodeInfoName(option, found.name));
    if (request.infos.includes(nbd.NBD_INFO_BLOCK_SIZE)) send(wire.encodeInfoBlockSize(option));
    this.#ack(option);
    return option === nbd.NBD_OPT_GO ? this.#enter(found) : 'next';
  }

  #answerMetaContext(option: number, data: Uint8Array): Step {
    const isSet = option === nbd.NBD_OPT_SET_META_CONTEXT;
    if (this.#style === 'simple') {
      return this.#invalid(option, 'metadata contexts need structured replies first');
    }
    const request = wire.decodeMetaContextRequest(data);
    if (request === undefined) return this.#invalid(option, 'the request does not add up');
    const lookup = this.#look(request.name);
    if (lookup.kind === 'refused') return this.#refuse(option, lookup.reply, lookup.message);
    const contexts = isSet ? selectContexts(request.queries) : listContexts(request.queries);
    if (isSet) {
      this.#contexts = contexts;
      this.#contextsExport = lookup.found.name;
    }
    for (const context of contexts) {
      // "The metadata context ID in these replies [to LIST] is reserved and SHOULD be set to zero"
      const id = isSet ? context.id : 0;
      this.#options.send(wire.encodeMetaContext(option, id, context.name));
    }
    return this.#ack(option);
  }

  #look(name: string): Lookup {
    try {
      const found = resolveExport(this.#options.exports, name);
      if (found !== undefined) return { kind: 'found', found };
    } catch (error) {
      if (!isStoreError(error)) throw error;
      const isGone = error.kind === 'closed' || error.kind === 'fenced';
      const reply = isGone ? nbd.NBD_REP_ERR_SHUTDOWN : nbd.NBD_REP_ERR_UNKNOWN;
      return { kind: 'refused', reply, message: error.message };
    }
    const message = name === '' ? 'there is no default export' : `no export is named '${name}'`;
    return { kind: 'refused', reply: nbd.NBD_REP_ERR_UNKNOWN, message };
  }

  #flagsOf({ target }: ResolvedExport): number {
    const flags =
      nbd.NBD_FLAG_HAS_FLAGS |
      nbd.NBD_FLAG_SEND_FLUSH |
      nbd.NBD_FLAG_SEND_FUA |
      nbd.NBD_FLAG_CAN_MULTI_CONN |
      nbd.NBD_FLAG_SEND_CACHE |
      (this.#style === 'simple' ? 0 : nbd.NBD_FLAG_SEND_DF) |
      (this.#style === 'extended' ? nbd.NBD_FLAG_BLOCK_STATUS_PAYLOAD : 0);
    if (target.readOnly) return flags | nbd.NBD_FLAG_READ_ONLY;
    return (
      flags | nbd.NBD_FLAG_SEND_TRIM | nbd.NBD_FLAG_SEND_WRITE_ZEROES | nbd.NBD_FLAG_SEND_FAST_ZERO
    );
  }

  #enter(found: ResolvedExport): Step {
    const contexts = this.#contextsExport === found.name ? this.#contexts : [];
    this.#agreement = { ...found, style: this.#style, contexts };
    return 'next';
  }

  #ack(option: number): Step {
    this.#options.send(wire.encodeOptionReply(option, nbd.NBD_REP_ACK));
    return 'next';
  }

  #invalid(option: number, message: string): Step {
    return this.#refuse(option, nbd.NBD_REP_ERR_INVALID, message);
  }

  #refuse(option: number, reply: number, message: string): Step {
    this.#options.send(wire.encodeOptionError(option, reply, message));
    return 'next';
  }
}

function hex(value: number): string {
  return value.toString(16);
}
