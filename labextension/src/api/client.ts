import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { EventParser } from './sse';
import type {
  Deployment,
  Federation,
  IPage,
  IPlatformEvent,
  IPlatformStatus,
  ITutorial,
  Model,
  ModelVersion,
  Run
} from './types';

/** Silence after which a stream counts as lost; the platform says something every 10 s. */
const SILENCE_MS = 35_000;

/** An answer that is an error, with the platform's sentence where it gave one. */
export class AnswerError extends Error {
  constructor(
    message: string,
    readonly status: number
  ) {
    super(message);
  }

  /** Nobody answered behind the Jupyter server, or it did not answer itself: worth a retry. */
  get passing(): boolean {
    return this.status === 0 || [408, 429, 502, 503, 504].includes(this.status);
  }
}

/** The listings of the platform, by their place in its API. */
export interface IListings {
  runs: Run;
  models: Model;
  deployments: Deployment;
  federations: Federation;
}

export type Kind = keyof IListings;

/** The platform as the Jupyter server reaches it: the browser never holds a token of it. */
export class Api {
  constructor(private _settings = ServerConnection.makeSettings()) {}

  status(): Promise<IPlatformStatus> {
    return this._json('GET', 'status');
  }

  start(): Promise<IPlatformStatus> {
    return this._json('POST', 'start');
  }

  tutorials(): Promise<ITutorial[]> {
    return this._json('GET', 'tutorials');
  }

  /** Copies the tutorial beside the user's files; gives the path of the copy. */
  copyTutorial(name: string): Promise<{ path: string }> {
    return this._json('POST', `tutorials/${encodeURIComponent(name)}`);
  }

  list<K extends Kind>(
    kind: K,
    options: { limit: number; cursor?: string | null; search?: string }
  ): Promise<IPage<IListings[K]>> {
    const query: Record<string, string> = { limit: String(options.limit) };
    if (options.cursor) {
      query['cursor'] = options.cursor;
    }
    if (options.search) {
      query['search'] = options.search;
    }
    return this._platform('GET', kind + URLExt.objectToQueryString(query));
  }

  get<K extends 'runs' | 'models' | 'deployments'>(kind: K, name: string): Promise<IListings[K]> {
    return this._platform('GET', `${kind}/${encodeURIComponent(name)}`);
  }

  versions(model: string, cursor: string | null = null): Promise<IPage<ModelVersion>> {
    const query = URLExt.objectToQueryString(cursor ? { limit: '50', cursor } : { limit: '50' });
    return this._platform('GET', `models/${encodeURIComponent(model)}/versions${query}`);
  }

  version(model: string, which: string): Promise<ModelVersion> {
    const place = `models/${encodeURIComponent(model)}/versions/${encodeURIComponent(which)}`;
    return this._platform('GET', place);
  }

  stop(run: string): Promise<Run> {
    return this._platform('POST', `runs/${encodeURIComponent(run)}/stop`);
  }

  /**
   * Follows a stream until it ends or `signal` aborts.
   *
   * `after` is the number of the last event that is known; the platform sends what came later.
   * After `latest` it says first where that is: `onPlace` is told each number to resume after.
   * Rejects when the connection is lost, so that the caller can resume.
   */
  async follow(
    stream: string,
    after: number | 'latest',
    signal: AbortSignal,
    onEvent: (event: IPlatformEvent) => void,
    onPlace: (sequence: number) => void
  ): Promise<void> {
    const lost = new AbortController();
    const stop = (): void => lost.abort();
    signal.addEventListener('abort', stop, { once: true });
    let silence = window.setTimeout(stop, SILENCE_MS);
    try {
      const headers: Record<string, string> = { Accept: 'text/event-stream' };
      const query: Record<string, string> = { stream };
      if (after === 'latest') {
        query['after'] = after;
      } else if (after > 0) {
        headers['Last-Event-ID'] = String(after);
      }
      const place = 'platform/api/v1/events' + URLExt.objectToQueryString(query);
      const response = await this._request(place, { headers, signal: lost.signal });
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new EventParser();
      while (reader) {
        const { done, value } = await reader.read();
        if (done) {
          return;
        }
        window.clearTimeout(silence);
        silence = window.setTimeout(stop, SILENCE_MS);
        const events = parser.push(value);
        if (parser.lastId) {
          onPlace(Number(parser.lastId));
        }
        events.forEach(event => onEvent(JSON.parse(event.data) as IPlatformEvent));
      }
    } finally {
      window.clearTimeout(silence);
      signal.removeEventListener('abort', stop);
      lost.abort();
    }
  }

  private _platform<T>(method: string, place: string): Promise<T> {
    return this._json(method, `platform/api/v1/${place}`);
  }

  private async _json<T>(method: string, place: string): Promise<T> {
    const headers: Record<string, string> = { Accept: 'application/json' };
    if (method !== 'GET') {
      // One attempt, one key: should the proxy repeat the call, it is done once.
      headers['Idempotency-Key'] = uniqueKey();
    }
    const response = await this._request(place, { method, headers });
    return (await response.json()) as T;
  }

  private async _request(place: string, init: RequestInit): Promise<Response> {
    const url = URLExt.join(this._settings.baseUrl, 'truststram') + '/' + place;
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(url, init, this._settings);
    } catch (error) {
      if (init.signal?.aborted) {
        throw error;
      }
      throw new AnswerError('The Jupyter server does not answer.', 0);
    }
    if (!response.ok) {
      throw new AnswerError(await told(response), response.status);
    }
    return response;
  }
}

/** The sentence of a problem document, else one of our own. */
async function told(response: Response): Promise<string> {
  const body = await response.text();
  try {
    const problem: unknown = JSON.parse(body);
    if (problem !== null && typeof problem === 'object') {
      const { detail, message } = problem as Record<string, unknown>;
      const sentence = detail ?? message;
      if (typeof sentence === 'string' && sentence) {
        return sentence;
      }
    }
  } catch {
    // A page of a server in between is no sentence to show; the status is.
  }
  return `The Jupyter server answered ${response.status} ${response.statusText}`.trim() + '.';
}

function uniqueKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('');
}
