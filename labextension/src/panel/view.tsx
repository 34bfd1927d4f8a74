import { refreshIcon } from '@jupyterlab/ui-components';
import React from 'react';

import type { Run } from '../api/types';
import { moment } from '../format';
import type { PanelStore } from '../store/store';
import { Grid } from './grid';
import { buildRows, Content, IRow } from './rows';

export interface IPanelProps {
  store: PanelStore;
  insert(content: Content): Promise<void>;
  fail(message: string): void;
}

const FIRST_OPEN = ['section:runs', 'section:models', 'section:deployments', 'section:federations'];
/** A pause in typing after which the platform is asked. */
const TYPING_MS = 250;

/** The panel: connection, search, and everything the platform has. */
export function PanelView({ store, insert, fail }: IPanelProps): JSX.Element {
  useStore(store);
  const [open, setOpen] = React.useState<ReadonlySet<string>>(new Set(FIRST_OPEN));
  const [stopping, setStopping] = React.useState<ReadonlySet<string>>(new Set());
  const { phase } = store.connection;
  const seen = React.useRef(false);
  seen.current ||= phase === 'ready';

  const toggle = (row: IRow): void => {
    const next = new Set(open);
    if (!next.delete(row.id)) {
      next.add(row.id);
      if (row.content.kind === 'model') {
        void store.loadVersions(row.content.model.name);
      }
    }
    setOpen(next);
  };
  const stopRun = (run: Run): void => {
    setStopping(former => new Set(former).add(run.name));
    store
      .stopRun(run.name)
      .catch(error => fail((error as Error).message))
      .finally(() => setStopping(former => new Set([...former].filter(name => name !== run.name))));
  };
  const rows = buildRows(store, open);
  return (
    <div className="ts-panel">
      <Connection store={store} />
      {seen.current && <Search store={store} />}
      {seen.current && phase !== 'stopped' && phase !== 'starting' && (
        <Grid
          rows={rows}
          toggle={toggle}
          insert={content => void insert(content).catch(error => fail((error as Error).message))}
          stopRun={stopRun}
          more={kind => store.more(kind)}
          stopping={stopping}
        />
      )}
      <div className="ts-heard" role="status" aria-live="polite">
        {store.announcement}
      </div>
    </div>
  );
}

/** Draws again when the store changes, once a frame at most. */
function useStore(store: PanelStore): void {
  const [, draw] = React.useReducer((times: number) => times + 1, 0);
  React.useEffect(() => {
    let frame = 0;
    const changed = (): void => {
      if (!frame) {
        frame = requestAnimationFrame(() => {
          frame = 0;
          draw();
        });
      }
    };
    store.changed.connect(changed);
    draw();
    return () => {
      cancelAnimationFrame(frame);
      store.changed.disconnect(changed);
    };
  }, [store]);
}

function Connection({ store }: { store: PanelStore }): JSX.Element {
  const { phase, status, message, retryAt } = store.connection;
  const place = status?.kind === 'platform' ? 'Platform' : 'Sandbox, this computer';
  const identity = status?.identity;
  const whole = React.useRef<HTMLElement>(null);
  const focused = React.useRef(false);
  // A button that was pressed and is gone leaves the focus here, not at the top of the page.
  React.useLayoutEffect(() => {
    if (focused.current && document.activeElement === document.body) {
      whole.current?.focus();
    }
  }, [phase]);
  return (
    <section
      className="ts-connection"
      aria-label="Connection"
      aria-busy={phase === 'loading'}
      tabIndex={-1}
      ref={whole}
      onFocus={() => (focused.current = true)}
      onBlur={() => (focused.current = false)}
    >
      <div className="ts-state">
        <span className={`ts-mark ts-mark-${phase}`} aria-hidden="true" />
        <strong>{headline(phase, place)}</strong>
        {(phase === 'ready' || phase === 'error') && (
          <button
            className="ts-button"
            aria-label="Load everything anew"
            title="Load everything anew"
            onClick={() => void store.connect()}
          >
            <refreshIcon.react tag="span" />
          </button>
        )}
      </div>
      {phase === 'ready' && identity && (
        <p>
          {identity.name}, {identity.role} in {identity.organisation}; platform{' '}
          {status.version ?? identity.platform_version}
        </p>
      )}
      {phase === 'loading' && <p>Looking for the platform…</p>}
      {phase === 'starting' && <p>A few seconds; its state is kept from the last time.</p>}
      {phase === 'stopped' && (
        <>
          <p>Its platform is a process of this computer; data stays here.</p>
          {message && <p>{message}</p>}
          <button className="ts-button-main" onClick={() => void store.start()}>
            Start the sandbox
          </button>
        </>
      )}
      {phase === 'error' && <p className="ts-error">{message}</p>}
      {phase === 'offline' && <Offline store={store} message={message} retryAt={retryAt} />}
    </section>
  );
}

function headline(phase: string, place: string): string {
  switch (phase) {
    case 'ready':
      return place;
    case 'stopped':
      return 'Sandbox: not running';
    case 'starting':
      return 'Starting the sandbox…';
    case 'offline':
      return 'Offline';
    case 'error':
      return 'Something is wrong';
    default:
      return 'TrustStram';
  }
}

function Offline(props: { store: PanelStore; message: string; retryAt: number | null }): JSX.Element {
  const [now, setNow] = React.useState(Date.now());
  React.useEffect(() => {
    const timer = window.setInterval(() => setNow(Date.now()), 1000);
    return () => window.clearInterval(timer);
  }, []);
  const left = props.retryAt === null ? 0 : Math.max(0, Math.ceil((props.retryAt - now) / 1000));
  return (
    <>
      <p>
        {props.message} {left > 0 ? `Trying again in ${left} s.` : 'Trying again…'}
        {props.store.seenAt !== null && ` What is below is of ${moment(props.store.seenAt)}.`}
      </p>
      <button className="ts-button-main" onClick={() => void props.store.connect()}>
        Try now
      </button>
    </>
  );
}

function Search({ store }: { store: PanelStore }): JSX.Element {
  const [text, setText] = React.useState(store.search);
  const timer = React.useRef(0);
  const ask = (value: string): void => {
    setText(value);
    window.clearTimeout(timer.current);
    timer.current = window.setTimeout(() => void store.find(value.trim()), TYPING_MS);
  };
  return (
    <input
      className="ts-search"
      type="search"
      aria-label="Show only names that contain"
      placeholder="Filter by name"
      value={text}
      maxLength={100}
      onChange={event => ask(event.target.value)}
    />
  );
}
