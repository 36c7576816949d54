/**
 * The settings of the server: one table, which the config file, the environment, the flags and
 * docs/CONFIGURATION.md go by.
 *
 * A setting `nbd.allow-insecure` is the key `allow-insecure` in the section `[nbd]` of the file,
 * `KEIKI_NBD_ALLOW_INSECURE` in the environment and `--nbd-allow-insecure` as a flag; a few have a
 * shorter name of their own there.
 */
import { formatBytes, GIB, MIB, STORE_BYTES_MAX, STORE_BYTES_MIN, TIB } from '../base/units.js';

interface Common {
  readonly summary: string;
  /** Of flag and variable, where it is not that of the key. */
  readonly shortName?: string;
}

/** Any of them may be unset if it has no fallback. */
export type Setting =
  | (Common & { readonly kind: 'text' | 'path'; readonly fallback?: string })
  | (Common & {
      readonly kind: 'paths' | 'addresses' | 'urls';
      readonly fallback: readonly string[];
    })
  | (Common & { readonly kind: 'flag'; readonly fallback: boolean })
  | (Common & {
      readonly kind: 'choice';
      readonly choices: readonly string[];
      readonly fallback: string;
    })
  /** Octal, as chmod takes it. */
  | (Common & { readonly kind: 'mode'; readonly fallback: number })
  | (Common & {
      readonly kind: 'bytes' | 'count' | 'milliseconds';
      readonly minimum: number;
      readonly maximum: number;
      readonly fallback?: number;
    })
  /** A decimal fraction. */
  | (Common & { readonly kind: 'price'; readonly fallback?: number });

export const SETTINGS = {
  'store.path': {
    kind: 'path',
    shortName: 'store',
    summary:
      'The store: a file or block device, s3://BUCKET/PREFIX, or dir:DIRECTORY; the only setting ' +
      'that has to be given',
  },
  'store.size': {
    kind: 'bytes',
    shortName: 'size',
    minimum: STORE_BYTES_MIN,
    maximum: STORE_BYTES_MAX,
    summary:
      'If there is no store, it is made with this size; a blank block device is made a store ' +
      'of all of it without; else nothing is done with it',
  },
  'store.erase-device': {
    kind: 'flag',
    fallback: false,
    summary:
      'A block device that holds something else than a store may be made one: what is on it is ' +
      'lost. One that holds a store, sound or damaged, is never erased',
  },
  'store.preallocate': {
    kind: 'flag',
    fallback: false,
    summary: 'Write a new file full of zeros, so that its file system cannot run full later',
  },
  'store.memory': {
    kind: 'bytes',
    minimum: 4 * MIB,
    maximum: 64 * GIB,
    fallback: 256 * MIB,
    summary: 'Memory for buffers of the store',
  },
  'store.dirty-memory': {
    kind: 'bytes',
    minimum: 2 * MIB,
    maximum: 64 * GIB,
    summary: 'Of these, how many may wait for a consistency point; half of them if not given',
  },
  'store.cache-file': {
    kind: 'path',
    shortName: 'cache-file',
    summary: 'Object store: file on a local disk that keeps blocks that were read; made if missing',
  },
  'store.cache-size': {
    kind: 'bytes',
    shortName: 'cache-size',
    minimum: 16 * MIB,
    maximum: TIB,
    fallback: 16 * GIB,
    summary: 'Object store: size of the cache file; its index takes 7 MiB of memory a GiB',
  },
  'store.live-percent': {
    kind: 'count',
    minimum: 0,
    maximum: 95,
    fallback: 70,
    summary: 'Object store: when less than this is live the cleaner works; 0: never',
  },
  'store.sweep-hours': {
    kind: 'count',
    minimum: 0,
    maximum: 8760,
    fallback: 24,
    summary:
      'Object store: it is listed so often for objects that crashes left behind, and at the ' +
      'start; 0: never',
  },
  'store.cp-interval-ms': {
    kind: 'milliseconds',
    minimum: 10,
    maximum: 3_600_000,
    fallback: 5000,
    summary: 'From a change to the consistency point that holds it, at most',
  },
  'store.durability': {
    kind: 'choice',
    shortName: 'durability',
    choices: ['remote', 'local'],
    fallback: 'remote',
    summary:
      'Object store: a flush is answered when the object store has it, or the local log, which ' +
      'hands it on within local-lag-ms',
  },
  'store.local-log': {
    kind: 'path',
    shortName: 'local-log',
    summary:
      'Object store: file or block device on a local disk, for durability local; made if ' +
      'missing. With remote: what an earlier server left there is recovered',
  },
  'store.local-log-size': {
    kind: 'bytes',
    shortName: 'local-log-size',
    minimum: 16 * MIB,
    maximum: 64 * GIB,
    fallback: 256 * MIB,
    summary: 'Size of a new local log: the object store never lags more bytes behind',
  },
  'store.local-lag-ms': {
    kind: 'milliseconds',
    shortName: 'local-lag-ms',
    minimum: 100,
    maximum: 3_600_000,
    fallback: 5000,
    summary: 'What is in the local log only is never older; beyond it a flush waits',
  },
  'store.without-local-log': {
    kind: 'flag',
    shortName: 'without-local-log',
    fallback: false,
    summary:
      'Object store: open it although the local log that has its end is lost. What was flushed ' +
      'since the last consistency point is gone then',
  },
  'store.take-over': {
    kind: 'flag',
    shortName: 'take-over',
    fallback: false,
    summary: 'Object store: depose a server that has the store open, even if it lives',
  },
  'store.stale-reads-ms': {
    kind: 'milliseconds',
    minimum: 500,
    maximum: 60_000,
    fallback: 3000,
    summary:
      'Object store: a server that cannot confirm for so long that it is the owner answers no ' +
      'reads; its successor waits for twice as long',
  },
  's3.endpoint': {
    kind: 'urls',
    fallback: [],
    summary:
      'Gateways of one S3 store, http://HOST:PORT or https://HOST; none: AWS_ENDPOINT_URL_S3, ' +
      'AWS_ENDPOINT_URL, or Amazon',
  },
  's3.region': {
    kind: 'text',
    summary: 'Its region; none: AWS_REGION, AWS_DEFAULT_REGION, or us-east-1 at an endpoint',
  },
  's3.addressing': {
    kind: 'choice',
    choices: ['auto', 'path', 'host'],
    fallback: 'auto',
    summary: 'Where the bucket stands in a URL; auto: path at an endpoint, host at Amazon',
  },
  's3.requests': {
    kind: 'count',
    minimum: 1,
    maximum: 256,
    fallback: 8,
    summary: 'PUTs under way at once, and as many other requests; further ones wait',
  },
  's3.timeout-ms': {
    kind: 'milliseconds',
    minimum: 100,
    maximum: 600_000,
    fallback: 10_000,
    summary: 'From a request to the end of its answer; then another endpoint is asked',
  },
  's3.patience-ms': {
    kind: 'milliseconds',
    minimum: 100,
    maximum: 3_600_000,
    fallback: 60_000,
    summary: 'How long requests are tried again, from the first that fails, before they fail',
  },
  'api.listen': {
    kind: 'addresses',
    shortName: 'api',
    fallback: [],
    summary:
      'Unix sockets (paths) and TCP ports (HOST:PORT) of the control API; none: api.sock in the ' +
      'runtime folder',
  },
  'api.token-file': {
    kind: 'path',
    summary:
      'What clients on TCP ports must bring, in a file, which is made if it is not there; needed ' +
      'for a TCP port',
  },
  'api.socket-mode': {
    kind: 'mode',
    fallback: 0o600,
    summary: 'Permissions of its unix sockets: who may write to one manages the store',
  },
  'nbd.socket': {
    kind: 'paths',
    shortName: 'nbd-socket',
    fallback: [],
    summary: 'Unix sockets of NBD; with no nbd.listen either: nbd.sock in the runtime folder',
  },
  'nbd.listen': {
    kind: 'addresses',
    shortName: 'nbd',
    fallback: [],
    summary: 'TCP ports (HOST:PORT) of NBD',
  },
  'nbd.socket-mode': {
    kind: 'mode',
    fallback: 0o600,
    summary: 'Permissions of its unix sockets, and of those of single vdisks',
  },
  'nbd.attachments-file': {
    kind: 'path',
    summary:
      'Where sockets and ports of single vdisks are kept over restarts; none: beside a store ' +
      'that is a file, as its name and .attachments; of a block device nowhere',
  },
  'price.put-1000': {
    kind: 'price',
    summary: 'Object store: of 1,000 PUTs or LISTs, in any currency, for `keiki stats`',
  },
  'price.get-1000': { kind: 'price', summary: 'Object store: of 1,000 GETs' },
  'price.gb-month': { kind: 'price', summary: 'Object store: of 10^9 bytes kept for a month' },
  'price.egress-gb': { kind: 'price', summary: 'Object store: of 10^9 bytes read' },
  'nbd.tls': {
    kind: 'choice',
    choices: ['off', 'allow', 'require'],
    fallback: 'off',
    summary: 'TLS on TCP ports of NBD; beyond loopback it is require, or nbd.allow-insecure',
  },
  'nbd.tls-certificate': {
    kind: 'path',
    summary: 'Certificate of the server and those above it (PEM)',
  },
  'nbd.tls-key': { kind: 'path', summary: 'Its key (PEM)' },
  'nbd.tls-client-authorities': {
    kind: 'path',
    summary: 'Clients need a certificate that one of these (PEM) has signed',
  },
  'nbd.tls-psk-file': {
    kind: 'path',
    summary: 'Pre-shared keys of clients: lines NAME:KEY, the key in hexadecimal',
  },
  'nbd.allow-insecure': {
    kind: 'flag',
    fallback: false,
    summary: 'Serve NBD beyond loopback to everybody who reaches the port, in the clear',
  },
  'nbd.connections': {
    kind: 'count',
    minimum: 1,
    maximum: 100_000,
    fallback: 4096,
    summary: 'Clients on each socket or port; further ones are closed at once',
  },
  'nbd.memory': {
    kind: 'bytes',
    minimum: 64 * MIB,
    maximum: 64 * GIB,
    fallback: 512 * MIB,
    summary: 'Memory for requests and replies of all clients, and 256 KiB for each',
  },
  'nbd.handshake-ms': {
    kind: 'milliseconds',
    minimum: 100,
    maximum: 3_600_000,
    fallback: 30_000,
    summary: 'From a connection to the choice of an export',
  },
  'images.folders': {
    kind: 'paths',
    fallback: [],
    summary:
      'Folders of disk images that clones may be made over without import, with all that is ' +
      'below; none: no image can be',
  },
  'server.drain-ms': {
    kind: 'milliseconds',
    minimum: 0,
    maximum: 3_600_000,
    fallback: 10_000,
    summary: 'At the end: how long requests under way may take before they are cut off',
  },
  'log.level': {
    kind: 'choice',
    choices: ['debug', 'info', 'warn', 'error'],
    fallback: 'info',
    summary: 'The least that is logged',
  },
  'log.format': {
    kind: 'choice',
    choices: ['text', 'json'],
    fallback: 'text',
    summary: 'Lines for people, or one JSON object a line',
  },
} as const satisfies Record<string, Setting>;

export type SettingKey = keyof typeof SETTINGS;

type ValueOfKind<S> = S extends { kind: 'paths' | 'addresses' | 'urls' }
  ? readonly string[]
  : S extends { kind: 'flag' }
    ? boolean
    : S extends { kind: 'choice'; choices: readonly (infer C)[] }
      ? C
      : S extends { kind: 'bytes' | 'count' | 'milliseconds' | 'mode' | 'price' }
        ? number
        : string;

/** What the server goes by. */
export type Settings = {
  readonly [K in SettingKey]: (typeof SETTINGS)[K] extends { fallback: unknown }
    ? ValueOfKind<(typeof SETTINGS)[K]>
    : ValueOfKind<(typeof SETTINGS)[K]> | undefined;
};

export const SETTING_KEYS = Object.keys(SETTINGS) as SettingKey[];

function nameOf(key: SettingKey): string {
  const setting: Setting = SETTINGS[key];
  return setting.shortName ?? key.replaceAll('.', '-');
}

/** Without the dashes before it. */
export function flagOf(key: SettingKey): string {
  return nameOf(key);
}

export function variableOf(key: SettingKey): string {
  return `KEIKI_${nameOf(key).replaceAll('-', '_').toUpperCase()}`;
}

/** For people: what the setting takes. */
export function describeKind(setting: Setting): string {
  switch (setting.kind) {
    case 'text':
      return 'text';
    case 'path':
      return 'path';
    case 'paths':
      return 'path, or list of paths';
    case 'addresses':
      return 'address, or list of addresses';
    case 'urls':
      return 'URL, or list of URLs';
    case 'flag':
      return 'true or false';
    case 'choice':
      return setting.choices.join(', ');
    case 'mode':
      return 'octal mode';
    case 'bytes':
      return `size, ${formatBytes(setting.minimum)} to ${formatBytes(setting.maximum)}`;
    case 'count':
      return `number, ${setting.minimum} to ${setting.maximum}`;
    case 'price':
      return 'price, as 0.005';
    case 'milliseconds':
      return `milliseconds, ${setting.minimum} to ${setting.maximum}`;
  }
}

/** For people: what it is if it is not given. */
export function describeFallback(setting: Setting): string {
  if (setting.fallback === undefined) return 'none';
  switch (setting.kind) {
    case 'bytes':
      return formatBytes(Number(setting.fallback));
    case 'mode':
      return `0${setting.fallback.toString(8)}`;
    case 'paths':
    case 'addresses':
    case 'urls':
      return 'none';
    default:
      return String(setting.fallback);
  }
}
