import type { Api } from '../api/client';
import type { IPlatformEvent } from '../api/types';
import { Backoff } from './backoff';

/** Keeps one stream open and resumes it after the last event that it saw. */
export class Follower {
  constructor(
    private _api: Api,
    private _stream: string,
    private _onEvent: (event: IPlatformEvent) => void,
    private _after: number | 'latest',
    private _onLost: (error: Error) => void = () => undefined
  ) {}

  /**
   * Opens the stream; a stream that is open stays as it is.
   *
   * Resolves once it is settled where the stream begins, or that it does not yet: what is read
   * afterwards misses nothing.
   */
  start(): Promise<void> {
    if (this._control === null) {
      this._control = new AbortController();
      const { signal } = this._control;
      this._begun = new Promise(resolve => {
        signal.addEventListener('abort', () => resolve());
        void this._run(signal, resolve);
      });
    }
    return this._begun;
  }

  /** Closes the stream; `start` resumes it. */
  stop(): void {
    this._control?.abort();
    this._control = null;
  }

  private async _run(signal: AbortSignal, begun: () => void): Promise<void> {
    const backoff = new Backoff();
    if (this._after !== 'latest') {
      begun();
    }
    const onPlace = (sequence: number): void => {
      this._after = this._after === 'latest' ? sequence : Math.max(this._after, sequence);
      begun();
    };
    const onEvent = (event: IPlatformEvent): void => {
      backoff.reset();
      if (!signal.aborted) {
        this._onEvent(event);
      }
    };
    while (!signal.aborted) {
      let failure = new Error('The platform closed the stream.');
      try {
        await this._api.follow(this._stream, this._after, signal, onEvent, onPlace);
      } catch (error) {
        failure = error as Error;
      }
      if (signal.aborted) {
        return;
      }
      if (this._after === 'latest') {
        // Where it begins is still open, and others go on reading: then from the first event.
        this._after = 0;
        begun();
      }
      this._onLost(failure);
      await pause(backoff.next(), signal);
    }
  }

  private _control: AbortController | null = null;
  private _begun: Promise<void> = Promise.resolve();
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const timer = window.setTimeout(resolve, milliseconds);
    signal.addEventListener('abort', () => {
      window.clearTimeout(timer);
      resolve();
    });
  });
}
