/** Where server and clients on one machine meet if nobody says otherwise. Pure. */

/**
 * The folder of the default sockets: /run/keiki for root, and for others keiki in their runtime
 * folder, or keiki-UID in /tmp.
 */
export function runtimeFolder(
  environment: Readonly<Record<string, string | undefined>>,
  userId: number,
): string {
  const { XDG_RUNTIME_DIR: folder } = environment;
  if (userId === 0) return '/run/keiki';
  return folder?.startsWith('/') === true ? `${folder}/keiki` : `/tmp/keiki-${userId}`;
}

export function defaultApiSocket(folder: string): string {
  return `${folder}/api.sock`;
}

export function defaultNbdSocket(folder: string): string {
  return `${folder}/nbd.sock`;
}
