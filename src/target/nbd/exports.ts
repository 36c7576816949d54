/** What the owner of the vdisks gives the server: names, targets, an ear for who is connected. */
import type { BlockTarget } from '../../vdisk/block-target.js';

/** A client in the transmission phase. */
export interface NbdConnection {
  readonly id: number;
  /** 'unix', or address and port of the client. */
  readonly peer: string;
  readonly exportName: string;
  readonly target: BlockTarget;
  /** Requests that are not answered yet. */
  readonly requestsInFlight: number;
  /** Memory that the connection holds. */
  readonly heldBytes: number;
  /** Answers what was begun, then closes the connection. */
  disconnect(): void;
}

export interface ExportTable {
  /** The export that a client gets who names none; without it, the only one there is. */
  readonly defaultName?: string | undefined;
  /** Names that a client is told when it asks, in this order. */
  list(): readonly string[];
  /** Looks the target up; this alone attaches nobody. The size is read anew for each request. */
  open(name: string): BlockTarget | undefined;
  /** The client may send requests from now on. */
  attached?(connection: NbdConnection): void;
  /** The connection is gone and the last of its requests has ended. */
  detached?(connection: NbdConnection): void;
}

export interface ResolvedExport {
  readonly name: string;
  readonly target: BlockTarget;
}

/** The export a client means by this name; '' is the default one. */
export function resolveExport(exports: ExportTable, name: string): ResolvedExport | undefined {
  const resolved = name === '' ? defaultNameOf(exports) : name;
  if (resolved === undefined) return undefined;
  const target = exports.open(resolved);
  return target === undefined ? undefined : { name: resolved, target };
}

function defaultNameOf(exports: ExportTable): string | undefined {
  if (exports.defaultName !== undefined) return exports.defaultName;
  const names = exports.list();
  return names.length === 1 ? names[0] : undefined;
}
