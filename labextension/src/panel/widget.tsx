import { ReactWidget } from '@jupyterlab/ui-components';
import type { Message } from '@lumino/messaging';
import React from 'react';

import { markIcon } from '../icons';
import { IPanelProps, PanelView } from './view';

export const PANEL_ID = 'truststram-lab-panel';

/** The side panel; it holds connections only while it can be seen. */
export class TrustStramPanel extends ReactWidget {
  constructor(private _props: IPanelProps) {
    super();
    this.id = PANEL_ID;
    this.title.icon = markIcon;
    this.title.caption = 'TrustStram: runs, models, deployments';
    this.addClass('ts-side');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'TrustStram');
    document.addEventListener('visibilitychange', this._look);
  }

  dispose(): void {
    document.removeEventListener('visibilitychange', this._look);
    this._props.store.dispose();
    super.dispose();
  }

  protected render(): JSX.Element {
    return <PanelView {...this._props} />;
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._look();
  }

  protected onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this._look();
  }

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this._look();
  }

  protected onBeforeDetach(message: Message): void {
    this._props.store.watch(false);
    super.onBeforeDetach(message);
  }

  private _look = (): void => {
    this._props.store.watch(this.isVisible && document.visibilityState === 'visible');
  };
}
