import { addBelowIcon, caretDownIcon, caretRightIcon, stopIcon } from '@jupyterlab/ui-components';
import React from 'react';

import { clip, count, plural } from '../format';
import { isActive } from '../store/live';
import {
  Content,
  deploymentLine,
  deploymentWords,
  IRow,
  modelWords,
  runWords,
  versionWords
} from './rows';
import type { Run } from '../api/types';
import type { Kind } from '../api/client';

/** What the buttons of the rows do. */
export interface IRowActions {
  insert(content: Content): void;
  stopRun(run: Run): void;
  more(kind: Kind): void;
  stopping: ReadonlySet<string>;
}

interface IRowProps {
  row: IRow;
  index: number;
  top: number;
  current: boolean;
  choose(): void;
  toggle(): void;
  actions: IRowActions;
}

/** One row: a cell with what it is, and a cell with its buttons. */
export function RowView(props: IRowProps): JSX.Element {
  const { row, current, top, index, actions } = props;
  const Caret = row.open ? caretDownIcon.react : caretRightIcon.react;
  return (
    <div
      className={`ts-row ts-row-${row.content.kind}`}
      role="row"
      aria-level={row.level}
      aria-posinset={row.place}
      aria-setsize={row.siblings}
      aria-rowindex={index + 1}
      aria-expanded={row.open ?? undefined}
      aria-label={row.label}
      tabIndex={current ? 0 : -1}
      style={{ height: row.height, transform: `translateY(${top}px)` }}
      onFocus={props.choose}
      onClick={row.open === null ? undefined : props.toggle}
    >
      <div className="ts-cell" role="gridcell" style={{ paddingLeft: (row.level - 1) * 10 }}>
        {row.open === null ? <span className="ts-caret" /> : <Caret tag="span" className="ts-caret" />}
        <div className="ts-words">
          <Words content={row.content} />
        </div>
      </div>
      <div className="ts-buttons" role="gridcell" onClick={event => event.stopPropagation()}>
        <Buttons content={row.content} current={current} actions={actions} />
      </div>
    </div>
  );
}

function Two(props: {
  name: string;
  rest: string;
  whole?: string;
  mark?: string;
}): JSX.Element {
  return (
    <>
      <div className="ts-name" title={props.name}>
        {props.mark && <span className={`ts-mark ts-mark-${props.mark}`} aria-hidden="true" />}
        {clip(props.name, 120)}
      </div>
      <div className="ts-rest" title={props.whole ?? props.rest}>
        {props.rest}
      </div>
    </>
  );
}

function Words({ content }: { content: Content }): JSX.Element {
  switch (content.kind) {
    case 'section':
      return (
        <div className="ts-title">
          {content.title} <span className="ts-total">{content.total}</span>
        </div>
      );
    case 'run':
      return <RunWords run={content.run} />;
    case 'model':
      return <Two name={content.model.name} rest={modelWords(content.model)} />;
    case 'version':
      return (
        <div className="ts-line">
          <span className="ts-key">Version {count(content.version.sequence)}</span>{' '}
          <span className="ts-rest">{versionWords(content.version, content.deployed)}</span>
        </div>
      );
    case 'deployment': {
      const { deployment } = content;
      return (
        <Two
          name={deployment.name}
          rest={deploymentLine(deployment)}
          whole={deploymentWords(deployment)}
          mark={deployment.status}
        />
      );
    }
    case 'federation': {
      const rest = plural(content.federation.participants.length, 'site');
      return <Two name={content.federation.name} rest={rest} />;
    }
    case 'fact':
      return (
        <div className="ts-line" title={content.value}>
          <span className="ts-key">{content.name}</span>{' '}
          <span className="ts-value">{content.value}</span>
          {content.curve && <Curve values={content.curve} />}
        </div>
      );
    case 'note':
      return (
        <div className={content.error ? 'ts-note ts-error' : 'ts-note'}>{clip(content.text, 200)}</div>
      );
    case 'more':
      return <div className="ts-note">{content.text} are on the platform.</div>;
  }
}

function RunWords({ run }: { run: Run }): JSX.Element {
  const { rounds } = run.plan;
  const sites = run.plan.sites?.length ?? 0;
  const arrived = isActive(run) ? (run.pushed?.length ?? 0) / Math.max(sites, 1) : 0;
  const done = Math.min(1, (run.round + (run.round < rounds ? arrived : 0)) / rounds);
  return (
    <>
      <Two name={run.name} rest={runWords(run)} mark={run.status} />
      {isActive(run) && (
        <div
          className="ts-progress"
          role="progressbar"
          aria-label={`Rounds of ${run.name}`}
          aria-valuemin={0}
          aria-valuemax={rounds}
          aria-valuenow={run.round}
          aria-valuetext={`round ${run.round} of ${rounds}`}
        >
          <div style={{ transform: `scaleX(${done})` }} />
        </div>
      )}
    </>
  );
}

/** Accuracy over the rounds; the text beside it has the first and the last. */
function Curve({ values }: { values: number[] }): JSX.Element {
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const step = 56 / (values.length - 1);
  const points = values
    .map((value, index) => `${(2 + index * step).toFixed(1)},${(14 - (12 * (value - low)) / span).toFixed(1)}`)
    .join(' ');
  return (
    <svg className="ts-curve" width="60" height="16" viewBox="0 0 60 16" aria-hidden="true">
      <polyline points={points} fill="none" strokeWidth="1.5" />
    </svg>
  );
}

function Buttons(props: { content: Content; current: boolean; actions: IRowActions }): JSX.Element {
  const { content, current, actions } = props;
  const tabIndex = current ? 0 : -1;
  const buttons: JSX.Element[] = [];
  if (content.kind === 'run' && isActive(content.run)) {
    const { run } = content;
    const waiting = actions.stopping.has(run.name);
    buttons.push(
      <button
        key="stop"
        className="ts-button"
        tabIndex={tabIndex}
        aria-label={`Stop ${run.name}`}
        aria-disabled={waiting}
        title={waiting ? 'Stopping…' : 'Stop this run; it can be resumed'}
        onClick={() => !waiting && actions.stopRun(run)}
      >
        <stopIcon.react tag="span" />
      </button>
    );
  }
  if (content.kind === 'more') {
    buttons.push(
      <button
        key="more"
        className="ts-button ts-button-words"
        tabIndex={tabIndex}
        onClick={() => actions.more(content.of)}
      >
        Load
      </button>
    );
  }
  const target = insertable(content);
  if (target !== null) {
    buttons.push(
      <button
        key="insert"
        className="ts-button"
        tabIndex={tabIndex}
        aria-label={`Insert a cell for ${target}`}
        title="Insert a cell"
        onClick={() => actions.insert(content)}
      >
        <addBelowIcon.react tag="span" />
      </button>
    );
  }
  return <>{buttons}</>;
}

/** What a cell can be inserted for, in words; null where there is nothing. */
function insertable(content: Content): string | null {
  switch (content.kind) {
    case 'run':
      return `run ${content.run.name}`;
    case 'model':
      return `model ${content.model.name}`;
    case 'version':
      return `version ${content.version.sequence} of ${content.version.model}`;
    case 'deployment':
      return `deployment ${content.deployment.name}`;
    case 'federation':
      return `federation ${content.federation.name}`;
    case 'note':
      return content.example ? 'the first run' : null;
    default:
      return null;
  }
}
