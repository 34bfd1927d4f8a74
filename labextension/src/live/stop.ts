import type { ICodeCellModel } from '@jupyterlab/cells';
import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import type { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';

import { h } from '../mime/dom';
import { showRun } from '../snippets';
import { isActive } from '../store/live';
import { isSettled, RunState, RunStates } from '../store/states';
import { IStop, STOP_TYPE, stopOf } from './marks';

/** What a Stop can do beside asking the platform. */
export interface IStopContext {
  states: RunStates;
  /** The cell that shows an element; null where something else does. */
  cellOf(node: Node): ICodeCellModel | null;
  /** Interrupts the notebook's kernel. */
  interrupt(): Promise<void>;
  /** Puts a cell into the notebook. */
  insert(source: string): Promise<void>;
  fail(message: string): void;
}

type Mode = 'nothing' | 'going' | 'stopping' | 'ended' | 'apart';

/** So long a pressed button waits before it says what else stops the run. */
const ANSWER_MS = 5000;
/** A kernel that is there replaces the button at the end of the run by itself, within this. */
const KERNEL_MS = 3000;

/** The Stop below a live card; it works by way of the Jupyter server. */
export class StopView extends Widget implements IRenderMime.IRenderer {
  constructor(private _context: IStopContext) {
    super();
    this.addClass('ts-stop');
    this._button.onclick = () => void this._press();
    this._insert.onclick = () => void this._insertCell();
    // The notebook's own shortcuts would take Enter and Space from the buttons.
    this.node.setAttribute('data-lm-suppress-shortcuts', 'true');
    this.node.addEventListener('keydown', event => {
      if (event.key === 'Enter' || event.key === ' ') {
        event.stopPropagation();
      }
    });
    this.node.append(this._button, this._words, this._insert);
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const stop = stopOf(model.data[STOP_TYPE]);
    if (stop?.run !== this._stop?.run) {
      this._letGo();
    }
    this._stop = stop;
    this._watch();
    this._draw();
  }

  dispose(): void {
    this._letGo();
    super.dispose();
  }

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this._watch();
    this._draw();
  }

  protected onBeforeDetach(message: Message): void {
    this._letGo();
    super.onBeforeDetach(message);
  }

  private get _state(): RunState {
    return this._stop ? this._context.states.get(this._stop.run) : { kind: 'asking' };
  }

  /** Whether the cell is at work; the kernel's own state is that of its last message. */
  private get _busy(): boolean {
    return this._cell?.executionState === 'running';
  }

  private _watch(): void {
    if (this._stop && this.isAttached && this._unfollow === null) {
      this._unfollow = this._context.states.follow(this._stop.run, () => this._draw());
      this._cell = this._context.cellOf(this.node);
      this._cell?.stateChanged.connect(this._draw, this);
    }
  }

  private _letGo(): void {
    this._unfollow?.();
    this._unfollow = null;
    this._cell?.stateChanged.disconnect(this._draw, this);
    this._cell = null;
    window.clearTimeout(this._patience);
    window.clearTimeout(this._grace);
    this._grace = 0;
  }

  private _draw(): void {
    const mode = modeOf(this._stop, this._state, this._pressed, this._busy);
    const live = this._mode === 'going' || this._mode === 'stopping';
    if (mode === 'ended' && live && !this._over) {
      this._grace ||= window.setTimeout(() => {
        this._grace = 0;
        this._over = true;
        this._draw();
      }, KERNEL_MS);
      return;
    }
    this._mode = mode;
    this._over = mode === 'ended';
    if (mode !== 'going' && mode !== 'stopping') {
      this._problem = '';
    }
    this._show(mode);
  }

  private _show(mode: Mode): void {
    const button = this._button;
    const stopping = mode === 'stopping';
    this.setHidden(mode === 'nothing');
    button.hidden = mode !== 'going' && !stopping;
    button.textContent = stopping ? 'Stopping…' : 'Stop';
    button.title = stopping ? '' : 'Stop this run; it can be resumed';
    // Not disabled, which would take the keyboard's focus away.
    button.setAttribute('aria-disabled', String(stopping));
    const name = this._stop?.name ?? '';
    const told = sentence(mode, this._state, name, this._stop, this._problem);
    this._source = told.source;
    const words = [told.before, told.source && h('code', {}, told.source), told.after];
    const text = told.before + told.source + told.after;
    if (text !== this._words.textContent) {
      this._words.replaceChildren(...words);
    }
    this._insert.hidden = !told.source;
    this._insert.setAttribute('aria-label', `Insert a cell: ${told.source}`);
  }

  private async _press(): Promise<void> {
    const stop = this._stop;
    if (!stop || this._pressed) {
      return;
    }
    this._pressed = true;
    this._problem = '';
    this._draw();
    try {
      await inTime(this._context.states.stop(stop.run));
    } catch (error) {
      await this._stopHere(stop, error as Error);
    }
  }

  /** The platform of the side panel did not stop it: the notebook's own kernel may. */
  private async _stopHere(stop: IStop, failure: Error): Promise<void> {
    if (stop.interrupt && this._busy) {
      this._patience = window.setTimeout(() => {
        this._release('The kernel does not answer.');
      }, ANSWER_MS);
      try {
        await inTime(this._context.interrupt());
      } catch (error) {
        this._release((error as Error).message);
      }
    } else {
      this._release(failure.message);
    }
    await this._context.states.ask(stop.run);
  }

  private _release(problem: string): void {
    window.clearTimeout(this._patience);
    this._pressed = false;
    this._problem = problem;
    this._draw();
  }

  private async _insertCell(): Promise<void> {
    try {
      await this._context.insert(this._source);
    } catch (error) {
      this._context.fail((error as Error).message);
    }
  }

  private _stop: IStop | null = null;
  private _mode: Mode = 'nothing';
  private _over = false;
  private _pressed = false;
  private _problem = '';
  private _source = '';
  private _patience = 0;
  private _grace = 0;
  private _unfollow: (() => void) | null = null;
  private _cell: ICodeCellModel | null = null;
  private _button = h('button', { type: 'button', class: 'ts-button ts-button-words' });
  private _words = h('span', { role: 'status', class: 'ts-stop-words' });
  private _insert = h(
    'button',
    { type: 'button', class: 'ts-button ts-button-words' },
    'Insert a cell'
  );
}

function modeOf(stop: IStop | null, state: RunState, pressed: boolean, busy: boolean): Mode {
  if (!stop) {
    return 'nothing';
  }
  const live: Mode = pressed ? 'stopping' : 'going';
  switch (state.kind) {
    case 'known':
      // After the training its kernel still compares; stopping that is worth a button.
      return isActive(state.run) || (!isSettled(state.run) && busy) ? live : 'ended';
    case 'asking':
      return busy || !stop.interrupt ? live : 'nothing';
    default:
      return busy && stop.interrupt ? live : 'apart';
  }
}

interface ISentence {
  before: string;
  /** The source of a cell. */
  source: string;
  after: string;
}

function sentence(
  mode: Mode,
  state: RunState,
  name: string,
  stop: IStop | null,
  problem: string
): ISentence {
  const show = showRun(name, false);
  if (mode === 'ended' && state.kind === 'known') {
    return { before: `Ended: ${state.run.status}. `, source: show, after: ' shows it.' };
  }
  if (mode === 'apart') {
    const why =
      state.kind === 'unknown'
        ? "The side panel's platform does not know this run. "
        : 'The platform does not answer. ';
    return stop?.interrupt
      ? { before: why, source: show, after: ' shows how it stands.' }
      : { before: `${why}Stop: `, source: `${show} stop`, after: '' };
  }
  if (problem) {
    const before = `${problem.replace(/\.?$/, '.')} Stop: `;
    return { before, source: `${show} stop`, after: '' };
  }
  return { before: '', source: '', after: '' };
}

/** The answer, or an error after a while: a press is never left without one. */
function inTime<T>(answer: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = (): void => reject(new Error('The platform does not answer.'));
    const timer = window.setTimeout(late, ANSWER_MS);
    answer.then(resolve, reject).finally(() => window.clearTimeout(timer));
  });
}

export function stopFactory(context: IStopContext): IRenderMime.IRendererFactory {
  return {
    // It acts for who looks at it, so only what the user ran is drawn as a button.
    safe: false,
    mimeTypes: [STOP_TYPE],
    createRenderer: () => new StopView(context)
  };
}
