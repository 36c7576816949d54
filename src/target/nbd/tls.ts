/**
 * TLS for NBD: X.509 certificates, pre-shared keys, or both.
 *
 * Source: proto.md, "TLS support"; the format of key files is that of GnuTLS's psktool, which
 * libnbd, nbdkit and qemu read, too.
 */
import { createHash, X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { StoreError } from '../../base/store-error.js';

export interface NbdTls {
  /** require: nothing but TLS; allow: the client decides. */
  readonly mode: 'allow' | 'require';
  /** PEM. */
  readonly certificate?: { readonly chain: string; readonly key: string } | undefined;
  /** PEM: a client needs a certificate that one of these has signed. */
  readonly clientAuthorities?: string | undefined;
  /** Keys by the name that a client gives. */
  readonly keys?: ReadonlyMap<string, Uint8Array> | undefined;
}

/** TLS 1.3, then what is forward secret in 1.2, with a certificate or with a key. */
const CIPHERS = [
  'TLS_AES_256_GCM_SHA384',
  'TLS_AES_128_GCM_SHA256',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
  'DHE-PSK-AES256-GCM-SHA384',
  'DHE-PSK-AES128-GCM-SHA256',
  'ECDHE-PSK-CHACHA20-POLY1305',
  'ECDHE-PSK-AES256-CBC-SHA384',
].join(':');

/** @throws {StoreError} invalid: certificate and key do not go together, or are none */
export function checkTls(tls: NbdTls): void {
  try {
    // Of an empty text Node makes no certificate, and of no authorities those of the whole world.
    for (const text of [tls.certificate?.chain, tls.clientAuthorities]) {
      if (text !== undefined) new X509Certificate(text);
    }
    createServer(toOptions(tls));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new StoreError('invalid', `TLS cannot be served with what was given: ${reason}`);
  }
  if (tls.certificate === undefined && (tls.keys === undefined || tls.keys.size === 0)) {
    throw new StoreError('invalid', 'TLS needs a certificate with its key, or pre-shared keys');
  }
}

/** Resolves when the client has proved what it had to; from then on the socket is encrypted. */
export function beginTls(socket: Socket, tls: NbdTls): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    // One server for one connection: no other way tells whose handshake has ended.
    const server = createServer(toOptions(tls));
    server.on('secureConnection', resolve);
    server.on('tlsClientError', reject);
    server.emit('connection', socket);
  });
}

function toOptions({ certificate, clientAuthorities, keys }: NbdTls): TlsOptions {
  return {
    minVersion: 'TLSv1.2',
    ciphers: CIPHERS,
    ...(certificate === undefined ? {} : { cert: certificate.chain, key: certificate.key }),
    ...(clientAuthorities === undefined
      ? {}
      : { ca: clientAuthorities, requestCert: true, rejectUnauthorized: true }),
    ...(keys === undefined
      ? {}
      : {
          pskIdentityHint: 'keiki',
          pskCallback: (_: TLSSocket, identity: string) => keys.get(identity) ?? noKey(keys),
        }),
  };
}

/** Only who knows all keys has it: a name that is not known and a wrong key look the same. */
function noKey(keys: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const hash = createHash('sha256');
  for (const key of keys.values()) hash.update(key);
  return hash.digest();
}

/** Lines `name:hexadecimal key`. @throws {StoreError} invalid, with the line */
export function parseKeyFile(text: string, name: string): Map<string, Uint8Array> {
  const keys = new Map<string, Uint8Array>();
  for (const [index, line] of text.split('\n').entries()) {
    const trimmed = line.trim();
    if (trimmed === '' || trimmed.startsWith('#')) continue;
    const at = trimmed.lastIndexOf(':');
    const hex = trimmed.slice(at + 1);
    const isKey = hex.length >= 32 && hex.length % 2 === 0 && /^[0-9a-fA-F]+$/.test(hex);
    if (at < 1 || !isKey) {
      throw new StoreError(
        'invalid',
        `${name}, line ${index + 1}: it is not "name:key", with 16 bytes or more in hexadecimal`,
      );
    }
    keys.set(trimmed.slice(0, at), Uint8Array.from(Buffer.from(hex, 'hex')));
  }
  return keys;
}
