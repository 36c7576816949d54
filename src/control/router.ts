/** Finds the operation that a method and a path mean. Pure. */
import { OPERATIONS, type Operation, type OperationId } from './operations.js';

interface Route {
  readonly id: OperationId;
  readonly method: string;
  readonly segments: readonly string[];
}

export type RouteMatch =
  | {
      readonly kind: 'found';
      readonly id: OperationId;
      readonly params: Readonly<Record<string, string>>;
    }
  /** The path is there, with other methods. */
  | { readonly kind: 'method'; readonly allowed: readonly string[] }
  | { readonly kind: 'none' };

const ROUTES: readonly Route[] = Object.entries<Operation>(OPERATIONS).map(([id, operation]) => ({
  id: id as OperationId,
  method: operation.method,
  segments: operation.path.split('/').slice(1),
}));

/** @param path  without query, still percent-encoded */
export function matchRoute(method: string, path: string): RouteMatch {
  if (!path.startsWith('/')) return { kind: 'none' };
  const segments = path.split('/').slice(1);
  const allowed = new Set<string>();
  for (const route of ROUTES) {
    const params = paramsOf(route.segments, segments);
    if (params === undefined) continue;
    if (route.method === method || (method === 'HEAD' && route.method === 'GET')) {
      return { kind: 'found', id: route.id, params };
    }
    allowed.add(route.method);
    if (route.method === 'GET') allowed.add('HEAD');
  }
  if (allowed.size === 0) return { kind: 'none' };
  return { kind: 'method', allowed: [...allowed, 'OPTIONS'].sort() };
}

function paramsOf(
  wanted: readonly string[],
  segments: readonly string[],
): Readonly<Record<string, string>> | undefined {
  if (wanted.length !== segments.length) return undefined;
  const params: Record<string, string> = {};
  for (const [index, want] of wanted.entries()) {
    const segment = segments[index] ?? '';
    if (want.startsWith('{')) {
      const value = decode(segment);
      if (value === undefined) return undefined;
      params[want.slice(1, -1)] = value;
    } else if (want !== segment) {
      return undefined;
    }
  }
  return params;
}

function decode(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined;
  }
}
