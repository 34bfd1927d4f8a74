"use strict";(self.rspackChunktruststram_lab=self.rspackChunktruststram_lab||[]).push([[700],{24(r,t,o){var e=o(25),n=o.n(e),a=o(26),i=(o.n(a))()(n());i.push([r.id,`.ts-side {
  display: flex;
  flex-direction: column;
  min-width: 220px;
  color: var(--jp-ui-font-color1);
  background: var(--jp-layout-color1);
  font-size: var(--jp-ui-font-size1);
}

.ts-panel {
  display: flex;
  flex: 1;
  flex-direction: column;
  min-height: 0;
  height: 100%;
}

.ts-connection {
  padding: 10px 12px;
  border-bottom: 1px solid var(--jp-border-color2);
}

.ts-connection p {
  margin: 4px 0 0;
  color: var(--jp-ui-font-color1);
  line-height: 1.4;
  overflow-wrap: anywhere;
}

.ts-connection code {
  white-space: nowrap;
}

.ts-state {
  display: flex;
  align-items: center;
  min-height: 24px;
}

.ts-state strong {
  flex: 1;
}

.ts-mark {
  display: inline-block;
  flex: none;
  width: 8px;
  height: 8px;
  margin-right: 8px;
  border: 1px solid var(--jp-ui-font-color2);
  border-radius: 50%;
}

.ts-mark-ready,
.ts-mark-completed {
  border-color: var(--jp-success-color1);
  background: var(--jp-success-color1);
}

.ts-mark-training,
.ts-mark-statistics,
.ts-mark-starting {
  border-color: var(--jp-brand-color1);
  background: var(--jp-brand-color1);
}

.ts-mark-failed,
.ts-mark-error {
  border-color: var(--jp-error-color1);
  border-radius: 0;
  background: var(--jp-error-color1);
}

.ts-mark-offline {
  border-color: var(--jp-warn-color1);
  border-radius: 0;
  background: var(--jp-warn-color1);
}

.ts-error {
  border-left: 3px solid var(--jp-error-color1);
  padding-left: 8px;
}

.ts-search {
  box-sizing: border-box;
  width: calc(100% - 24px);
  margin: 8px 12px;
  padding: 5px 8px;
  border: 1px solid var(--jp-border-color1);
  border-radius: var(--jp-border-radius);
  background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color1);
  font: inherit;
}

.ts-search::placeholder {
  color: var(--jp-ui-font-color2);
}

.ts-grid {
  flex: 1;
  min-height: 0;
  overflow: hidden auto;
}

.ts-rows {
  position: relative;
}

.ts-row {
  position: absolute;
  inset: 0 0 auto;
  display: flex;
  align-items: center;
  box-sizing: border-box;
  padding: 0 8px 0 4px;
}

.ts-row[aria-expanded] {
  cursor: pointer;
}

.ts-row:hover {
  background: var(--jp-layout-color2);
}

/* The softer text colour falls below 4.5 on the hover colour. */
.ts-row:hover .ts-rest,
.ts-row:hover .ts-note,
.ts-row:hover .ts-total {
  color: var(--jp-ui-font-color1);
}

.ts-row-section {
  border-top: 1px solid var(--jp-border-color2);
  background: var(--jp-layout-color1);
}

.ts-row:focus-visible,
.ts-connection:focus-visible,
.ts-button:focus-visible,
.ts-button-main:focus-visible,
.ts-search:focus-visible {
  outline: 2px solid var(--jp-brand-color1);
  outline-offset: -2px;
}

.ts-cell {
  display: flex;
  flex: 1;
  align-items: center;
  min-width: 0;
}

.ts-caret {
  flex: none;
  width: 16px;
  height: 16px;
}

.ts-caret svg {
  display: block;
  width: 16px;
}

.ts-words {
  flex: 1;
  min-width: 0;
}

.ts-title {
  font-weight: 600;
}

.ts-total {
  color: var(--jp-ui-font-color2);
  font-weight: normal;
}

.ts-name,
.ts-line,
.ts-rest {
  overflow: hidden;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.ts-rest,
.ts-key,
.ts-note {
  color: var(--jp-ui-font-color2);
  font-size: var(--jp-ui-font-size0, 12px);
}

.ts-note {
  line-height: 1.35;
  overflow-wrap: anywhere;
}

.ts-value {
  font-variant-numeric: tabular-nums;
}

.ts-curve {
  margin-left: 8px;
  vertical-align: middle;
}

.ts-curve polyline {
  stroke: var(--jp-brand-color1);
}

.ts-progress {
  overflow: hidden;
  height: 3px;
  margin-top: 3px;
  border-radius: 2px;
  background: var(--jp-border-color2);
}

.ts-progress > div {
  height: 100%;
  transform-origin: left;
  background: var(--jp-brand-color1);
}

@media (prefers-reduced-motion: no-preference) {
  .ts-progress > div {
    transition: transform 0.3s ease-out;
  }
}

.ts-buttons {
  display: flex;
  flex: none;
  gap: 2px;
}

.ts-button {
  display: flex;
  align-items: center;
  justify-content: center;
  min-width: 26px;
  height: 26px;
  padding: 0 4px;
  border: 0;
  border-radius: var(--jp-border-radius);
  background: transparent;
  color: inherit;
  font: inherit;
  cursor: pointer;
}

.ts-button:hover {
  background: var(--jp-layout-color3);
}

.ts-button[aria-disabled='true'] {
  opacity: 0.5;
  cursor: default;
}

.ts-button span,
.ts-button svg {
  display: block;
  width: 16px;
}

.ts-button-words {
  border: 1px solid var(--jp-border-color1);
  padding: 0 8px;
}

.ts-button-main {
  margin-top: 8px;
  padding: 6px 12px;
  border: 0;
  border-radius: var(--jp-border-radius);
  background: var(--jp-accept-color-normal, var(--jp-brand-color1));
  color: var(--jp-ui-inverse-font-color1, white);
  font: inherit;
  cursor: pointer;
}

.ts-heard {
  position: absolute;
  overflow: hidden;
  width: 1px;
  height: 1px;
  clip-path: inset(50%);
}

.ts-stop {
  display: flex;
  flex-wrap: wrap;
  gap: 8px;
  align-items: center;
  padding: 4px 0;
  color: var(--jp-content-font-color1);
  font-size: var(--jp-content-font-size1);
}

.ts-stop.lm-mod-hidden,
.ts-stop > [hidden] {
  display: none;
}

.ts-mime {
  padding: 8px 12px;
  overflow: auto;
  color: var(--jp-content-font-color1);
  font-size: var(--jp-ui-font-size1);
}

.ts-mime p {
  margin: 0 0 8px;
}

.ts-mime details {
  margin: 0 0 8px;
}

.ts-mime-curve {
  display: block;
  margin: 0 0 10px;
}

.ts-mime-curve polyline {
  fill: none;
  stroke: var(--jp-brand-color1);
  stroke-width: 2;
}

.ts-table {
  margin: 0 0 12px;
  border-collapse: collapse;
}

.ts-table caption {
  padding: 0 0 4px;
  font-weight: 600;
  text-align: left;
  white-space: nowrap;
}

.ts-table th,
.ts-table td {
  padding: 2px 16px 2px 0;
  text-align: left;
}

.ts-table tbody th {
  font-weight: normal;
}

.ts-table .ts-right {
  font-variant-numeric: tabular-nums;
  text-align: right;
  white-space: nowrap;
}

.ts-bar-cell {
  width: 120px;
}

/* Both colours have 3:1 contrast on white and on near-black, as on the cards. */
.ts-bar {
  display: block;
  height: 10px;
  background: #0f7ec2;
}

.ts-bar-negative {
  background: #b8651b;
}
`,""]),o.d(t,{},{A:i})},26(r){r.exports=function(r){var t=[];return t.toString=function(){return this.map(function(t){var o="",e=void 0!==t[5];return t[4]&&(o+="@supports (".concat(t[4],") {")),t[2]&&(o+="@media ".concat(t[2]," {")),e&&(o+="@layer".concat(t[5].length>0?" ".concat(t[5]):""," {")),o+=r(t),e&&(o+="}"),t[2]&&(o+="}"),t[4]&&(o+="}"),o}).join("")},t.i=function(r,o,e,n,a){"string"==typeof r&&(r=[[null,r,void 0]]);var i={};if(e)for(var s=0;s<this.length;s++){var l=this[s][0];null!=l&&(i[l]=!0)}for(var c=0;c<r.length;c++){var p=[].concat(r[c]);e&&i[p[0]]||(void 0!==a&&(void 0===p[5]||(p[1]="@layer".concat(p[5].length>0?" ".concat(p[5]):""," {").concat(p[1],"}")),p[5]=a),o&&(p[2]&&(p[1]="@media ".concat(p[2]," {").concat(p[1],"}")),p[2]=o),n&&(p[4]?(p[1]="@supports (".concat(p[4],") {").concat(p[1],"}"),p[4]=n):p[4]="".concat(n)),t.push(p))}},t}},25(r){r.exports=function(r){return r[1]}},18(r){var t=[];function o(r){for(var o=-1,e=0;e<t.length;e++)if(t[e].identifier===r){o=e;break}return o}function e(r,e){for(var n={},a=[],i=0;i<r.length;i++){var s=r[i],l=e.base?s[0]+e.base:s[0],c=n[l]||0,p="".concat(l," ").concat(c);n[l]=c+1;var d=o(p),u={css:s[1],media:s[2],sourceMap:s[3],supports:s[4],layer:s[5]};if(-1!==d)t[d].references++,t[d].updater(u);else{var f=function(r,t){var o=t.domAPI(t);return o.update(r),function(t){t?(t.css!==r.css||t.media!==r.media||t.sourceMap!==r.sourceMap||t.supports!==r.supports||t.layer!==r.layer)&&o.update(r=t):o.remove()}}(u,e);e.byIndex=i,t.splice(i,0,{identifier:p,updater:f,references:1})}a.push(p)}return a}r.exports=function(r,n){var a=e(r=r||[],n=n||{});return function(r){r=r||[];for(var i=0;i<a.length;i++){var s=o(a[i]);t[s].references--}for(var l=e(r,n),c=0;c<a.length;c++){var p=o(a[c]);0===t[p].references&&(t[p].updater(),t.splice(p,1))}a=l}}},20(r){var t={};r.exports=function(r,o){var e=function(r){if(void 0===t[r]){var o=document.querySelector(r);if(window.HTMLIFrameElement&&o instanceof window.HTMLIFrameElement)try{o=o.contentDocument.head}catch(r){o=null}t[r]=o}return t[r]}(r);if(!e)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");e.appendChild(o)}},22(r){r.exports=function(r){var t=document.createElement("style");return r.setAttributes(t,r.attributes),r.insert(t,r.options),t}},21(r,t,o){r.exports=function(r){var t=o.nc;t&&r.setAttribute("nonce",t)}},19(r){r.exports=function(r){if("u"<typeof document)return{update:function(){},remove:function(){}};var t=r.insertStyleElement(r);return{update:function(o){var e,n,a;e="",o.supports&&(e+="@supports (".concat(o.supports,") {")),o.media&&(e+="@media ".concat(o.media," {")),(n=void 0!==o.layer)&&(e+="@layer".concat(o.layer.length>0?" ".concat(o.layer):""," {")),e+=o.css,n&&(e+="}"),o.media&&(e+="}"),o.supports&&(e+="}"),(a=o.sourceMap)&&"u">typeof btoa&&(e+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(a))))," */")),r.styleTagTransform(e,t,r.options)},remove:function(){var r;null===(r=t).parentNode||r.parentNode.removeChild(r)}}}},23(r){r.exports=function(r,t){if(t.styleSheet)t.styleSheet.cssText=r;else{for(;t.firstChild;)t.removeChild(t.firstChild);t.appendChild(document.createTextNode(r))}}},17(r,t,o){var e=o(18),n=o.n(e),a=o(19),i=o.n(a),s=o(20),l=o.n(s),c=o(21),p=o.n(c),d=o(22),u=o.n(d),f=o(23),v=o.n(f),h=o(24),b={};b.styleTagTransform=v(),b.setAttributes=p(),b.insert=l().bind(null,"head"),b.domAPI=i(),b.insertStyleElement=u(),n()(h.A,b),h.A&&h.A.locals&&h.A.locals}}]);