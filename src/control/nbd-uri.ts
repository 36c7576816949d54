/** Addresses as the API shows them, and as NBD clients take them. */
import type { ListenAddress } from '../env/listen.js';
import type { NbdTls } from '../target/nbd/tls.js';
import type { Address } from './schemas.js';

/** True if only this machine reaches the address. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.[0-9]{1,3}){3}$/.test(host);
}

/** @param boundPort  the port that was taken, if 0 was asked for */
export function toAddress(address: ListenAddress, boundPort: number | undefined): Address {
  switch (address.kind) {
    case 'unix':
      return { kind: 'unix', path: address.path };
    case 'tcp':
      return { kind: 'tcp', host: address.host, port: boundPort ?? address.port };
    case 'descriptor':
      return address.path === undefined
        ? { kind: 'tcp', host: '', port: boundPort ?? 0 }
        : { kind: 'unix', path: address.path };
  }
}

/** What NBD clients take; '' is the default export. */
export function nbdUri(address: Address, exportName: string, tls?: NbdTls): string {
  const name = encode(exportName);
  if (address.kind === 'unix') {
    const path = address.path.split('/').map(encode).join('/');
    return `nbd+unix:///${name}?socket=${path}`;
  }
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  const scheme = tls?.mode === 'require' ? 'nbds' : 'nbd';
  return `${scheme}://${host}:${address.port}/${name}`;
}

/** Quotes, too, so that a URI can stand between quotes in a shell. */
function encode(text: string): string {
  return encodeURIComponent(text).replaceAll("'", '%27');
}
