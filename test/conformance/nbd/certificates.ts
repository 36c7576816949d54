/** An authority and certificates for the tests of TLS, made by openssl. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runOk } from './nbd-clients.js';

/**
 * ca-cert.pem, and what it has signed: server-cert.pem and client-cert.pem with their keys, which
 * are the names that libnbd looks for.
 */
export async function makeCertificates(folder: string): Promise<void> {
  const openssl = (...args: string[]): Promise<string> => runOk('openssl', args, folder);
  const key = ['-newkey', 'rsa:2048', '-nodes', '-days', '2'];
  const authority = ['-keyout', 'ca-key.pem', '-out', 'ca-cert.pem', '-subj', '/CN=authority'];
  await openssl('req', '-x509', ...key, ...authority);
  for (const who of ['server', 'client']) {
    writeFileSync(join(folder, `${who}.ext`), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
    const request = ['-keyout', `${who}-key.pem`, '-out', `${who}.csr`, '-subj', '/CN=localhost'];
    await openssl('req', ...key.slice(0, 3), ...request);
    const signer = ['-CA', 'ca-cert.pem', '-CAkey', 'ca-key.pem', '-CAcreateserial'];
    const out = ['-in', `${who}.csr`, '-out', `${who}-cert.pem`, '-extfile', `${who}.ext`];
    await openssl('x509', '-req', '-days', '2', ...signer, ...out);
  }
}
